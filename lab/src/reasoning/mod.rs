//! Word problems as GSM8K has them (Cobbe et al., arXiv 2110.14168), the prompts that they are asked with, and pass@k.
//!
//! # Prompt
//! Solved examples, if any, then the problem, a blank line between them:
//!
//! ```text
//! Question: Mia has 3 shells. …
//! Answer: 3 + 4 = 7
//! #### 7
//!
//! Question: Finn has 5 beads. …
//! Answer:
//! ```
//!
//! Examples stand as their file has them, GSM8K's `<<3+4=7>>` included. The model goes on behind `Answer:`, up to a blank line,
//! the end of the document, or the most tokens.
//!
//! # What counts as an answer
//! The number behind the first `####`, and nothing else: a text without one has no answer. A dollar sign and blanks in front of
//! it, commas between its digits and a full stop behind it are passed over; `70,000`, `$70000` and `70000.00` are one number.

pub mod arithmetic;

use engine::{Error, Result};
use ltm::json::{self, Value};
use std::fs;
use std::path::Path;

/// What stands in front of the number that is the answer.
const MARK: &str = "####";

/// A problem with its solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The story and the question.
    pub question: String,
    /// The way to the answer, and behind `####` the answer.
    pub answer: String,
}

impl Problem {
    /// The problem with its solution, as an example.
    pub fn solved(&self) -> String {
        format!("{} {}", self.asked(), self.answer.trim())
    }

    /// The problem as a model is asked it.
    pub fn asked(&self) -> String {
        format!("Question: {}\nAnswer:", self.question.trim())
    }

    /// A line of a problems' file.
    pub fn to_json(&self) -> Value {
        Value::object([("question", self.question.as_str().into()), ("answer", self.answer.as_str().into())])
    }
}

/// Reads a file of problems: one JSON object a line, with `question` and `answer`.
///
/// # Errors
/// A file that cannot be read or has no problem, and a line that is none: which, and what it lacks.
pub fn read(path: &Path) -> Result<Vec<Problem>> {
    let text = fs::read(path).map_err(|e| Error::io("read", path, &e))?;
    let lines = text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let problem = |(i, line): (usize, &[u8])| {
        let problem = json::parse(line).and_then(|value| {
            let field = |key: &str| value.read(key, Value::as_str).map(str::to_string);
            let problem = Problem { question: field("question")?, answer: field("answer")? };
            match number(&problem.answer) {
                Some(_) => Ok(problem),
                None => Err(Error::new(format!("answer: there is no number behind {MARK:?}"))),
            }
        });
        problem.map_err(|e| e.at(format!("{}:{}", path.display(), i + 1)))
    };
    let problems = lines.map(problem).collect::<Result<Vec<_>>>()?;
    if problems.is_empty() {
        return Err(Error::new(format!("{} holds no problem", path.display())));
    }
    Ok(problems)
}

/// What a model is asked: solved examples, then the problem.
pub fn prompt(examples: &[Problem], problem: &Problem) -> String {
    examples.iter().map(Problem::solved).chain([problem.asked()]).collect::<Vec<_>>().join("\n\n")
}

/// The answer that a text gives, written the shortest way: digits, a sign and a point where they are needed.
pub fn number(text: &str) -> Option<String> {
    let (_, behind) = text.split_once(MARK)?;
    let behind = behind.trim_start_matches([' ', '$']);
    let (sign, digits) = behind.strip_prefix('-').map_or(("", behind), |rest| ("-", rest));
    let digits = digits.trim_start_matches([' ', '$']);
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != ',' && c != '.').unwrap_or(digits.len());
    let digits = digits[..end].trim_end_matches(['.', ',']).replace(',', "");
    let (whole, part) = digits.split_once('.').unwrap_or((&digits, ""));
    if whole.is_empty() || part.contains('.') {
        return None;
    }
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let (whole, point) = (if whole.is_empty() { "0" } else { whole }, if part.is_empty() { "" } else { "." });
    let sign = if whole == "0" && part.is_empty() { "" } else { sign };
    Some(format!("{sign}{whole}{point}{part}"))
}

/// The probability that among `k` of `n` texts, drawn without replacement, at least one is right, where `right` of all are:
/// `1 − C(n − right, k) / C(n, k)`. Of independent texts it is an unbiased estimate of pass@k (Chen et al., arXiv 2107.03374).
///
/// # Panics
/// If there are fewer than `k` texts, or more right ones than texts.
pub fn pass_at(k: usize, n: usize, right: usize) -> f64 {
    assert!(k <= n && right <= n, "pass@{k} of {n} texts, {right} of them right");
    let wrong = n - right;
    if wrong < k {
        return 1.0;
    }
    1.0 - (0..k).map(|i| (wrong - i) as f64 / (n - i) as f64).product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_behind_the_mark() {
        let cases = [
            ("so it is 3\n#### 18", Some("18")),
            ("#### $70,000.00.", Some("70000")),
            ("####-5", Some("-5")),
            ("#### -$5.50 each", Some("-5.5")),
            ("#### 007", Some("7")),
            ("#### -0", Some("0")),
            ("#### 0.25%", Some("0.25")),
            ("#### 1 or 2\n#### 3", Some("1")),
            ("the answer is 18", None),
            ("####", None),
            ("#### x18", None),
            ("#### .5", None),
            ("#### 1.2.3", None),
        ];
        for (text, expected) in cases {
            assert_eq!(number(text).as_deref(), expected, "{text:?}");
        }
    }

    /// Against the mean over every choice of k texts.
    #[test]
    fn pass_at_k_is_the_mean_over_all_choices() {
        for (n, right, k) in [(5, 2, 1), (5, 2, 2), (6, 1, 3), (6, 0, 3), (6, 4, 3), (7, 7, 5), (5, 5, 5), (4, 1, 4)] {
            let choices = (0u32..1 << n).filter(|set| set.count_ones() as usize == k);
            let (hits, all) =
                choices.fold((0, 0), |(hits, all), set| (hits + usize::from(set & ((1 << right) - 1) != 0), all + 1));
            let expected = hits as f64 / f64::from(all);
            assert!((pass_at(k, n, right) - expected).abs() < 1e-12, "{n} {right} {k}");
        }
    }

    #[test]
    fn files_and_prompts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.jsonl");
        let problem = |q: &str, a: &str| Problem { question: q.into(), answer: a.into() };
        let problems = [problem("Two and two?", "2 + 2 = 4\n#### 4"), problem("\"One\"?", "#### 1")];
        let lines: String = problems.iter().map(|p| format!("{}\n\n", p.to_json())).collect();
        fs::write(&path, lines).unwrap();
        assert_eq!(read(&path).unwrap(), problems);
        assert_eq!(
            prompt(&problems[..1], &problems[1]),
            "Question: Two and two?\nAnswer: 2 + 2 = 4\n#### 4\n\nQuestion: \"One\"?\nAnswer:"
        );
        let error = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(error("\n").ends_with("p.jsonl holds no problem"));
        assert!(
            error("{\"question\": \"q\", \"answer\": \"#### 1\"}\n{\"question\": 3}\n").contains("p.jsonl:2: question")
        );
        assert!(error("{\"question\": \"q\", \"answer\": \"four\"}").contains("p.jsonl:1: answer: there is no number"));
        assert!(error("question").contains("p.jsonl:1: "));
    }
}
