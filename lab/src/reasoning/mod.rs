//! Word problems in the format of GSM8K (Cobbe et al., arXiv 2110.14168), their prompts, and pass@k.
//!
//! # Prompt
//! Solved examples, if any, then the problem, separated by blank lines:
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
//! Examples are copied from their file, including GSM8K's `<<3+4=7>>`. The model continues after `Answer:`, up to a
//! blank line, the end of the document, or the largest number of tokens.
//!
//! # What counts as an answer
//! The answer follows the first `####` up to the end of the line, and must be one number and nothing else; otherwise
//! the text has no answer. A dollar sign, commas between groups of three digits, a per cent sign and a final full stop
//! are ignored: `70,000`, `$70000` and `70000.00.` are the same number. `1/2`, `1e3`, `10:30`, `1 000` and `18 eggs`
//! are not numbers.
//!
//! GSM8K's own program and the strict match of lm-evaluation-harness search for `#### (\-?[0-9\.\,]+)` instead. They
//! read the leading number, so `1/2` counts as 1 and `18 eggs` as 18, and they compare text, so `3.0` is not 3. For
//! answers in GSM8K's own style all three agree.
//!
//! # Errors of a share
//! Its standard error is that of a mean over problems. If no problem or every problem is solved, the spread over
//! problems is zero. Then there is a one-sided 95 % confidence bound instead: of n problems, at most `1 − 0.05^(1/n)`
//! are solved, or at least `0.05^(1/n)`.

pub mod arithmetic;

use crate::text::writer;
use crate::transcript::{Origin, Transcript};
use engine::{Error, Result, file};
use ltm::evaluate::Mean;
use ltm::generate::Writing;
use ltm::hash::sha256_file;
use ltm::json;
use ltm::run::{Loaded, Run};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The mark before the answer.
const MARK: &str = "####";

/// Settings in which two evaluations with the same texts may differ.
const FREE: [&str; 3] = ["command", "run", "k"];

/// A problem with its solution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The story and the question.
    pub question: String,
    /// The solution, and after `####` the answer.
    pub answer: String,
}

impl Problem {
    /// The problem with its solution, as an example.
    pub fn solved(&self) -> String {
        format!("{} {}", self.asked(), self.answer.trim())
    }

    /// The problem as a prompt.
    pub fn asked(&self) -> String {
        format!("Question: {}\nAnswer:", self.question.trim())
    }
}

/// Reads a file of problems: one JSON object per line, with `question` and `answer`.
///
/// # Errors
/// If the file cannot be read or has no problem, or a line has no question or answer; the error names the line and what
/// it lacks.
pub fn read(path: &Path) -> Result<Vec<Problem>> {
    let text = file::read(path)?;
    let mut problems = Vec::new();
    for (i, line) in text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()) {
        let problem: Result<Problem> = json::from_bytes(line).and_then(|problem: Problem| {
            number(&problem.answer).ok_or_else(|| {
                Error::new(format!(
                    "answer: after {MARK:?} there must be one number and nothing else, such as 1,000 or -2.5"
                ))
            })?;
            Ok(problem)
        });
        problems.push(problem.map_err(|e| e.at(format!("{}:{}", path.display(), i + 1)))?);
    }
    if problems.is_empty() { Err(Error::new(format!("{} has no problem", path.display()))) } else { Ok(problems) }
}

/// The prompt: solved examples, then the problem.
pub fn prompt(examples: &[Problem], problem: &Problem) -> String {
    examples.iter().map(Problem::solved).chain([problem.asked()]).collect::<Vec<_>>().join("\n\n")
}

/// The answer in a text, in its shortest form: digits, with sign and point only if needed.
pub fn number(text: &str) -> Option<String> {
    let (_, behind) = text.split_once(MARK)?;
    let said = behind.lines().next()?.trim();
    let said = said.strip_suffix('.').unwrap_or(said);
    let said = said.strip_suffix('%').unwrap_or(said).trim_end();
    let dollars = |said| str::strip_prefix(said, '$').unwrap_or(said).trim_start();
    let said = dollars(said);
    let (sign, said) = said.strip_prefix('-').map_or(("", said), |rest| ("-", rest));
    let said = dollars(said);
    if said.is_empty() {
        return None;
    }
    let (whole, part) = said.split_once('.').unwrap_or((said, "0"));
    let groups: Vec<&str> = if whole.is_empty() { vec!["0"] } else { whole.split(',').collect() };
    let are_thousands = groups.len() == 1 || groups[0].len() < 4 && groups[1..].iter().all(|group| group.len() == 3);
    let are_digits = |group: &&str| !group.is_empty() && group.chars().all(|c| c.is_ascii_digit());
    if !are_thousands || !groups.iter().chain([&part]).all(are_digits) {
        return None;
    }
    let whole = groups.concat();
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let (whole, point) = (if whole.is_empty() { "0" } else { whole }, if part.is_empty() { "" } else { "." });
    let sign = if whole == "0" && part.is_empty() { "" } else { sign };
    Some(format!("{sign}{whole}{point}{part}"))
}

/// The probability that among `k` of `n` texts, drawn without replacement, at least one is right, where `right` of all are:
/// `1 − C(n − right, k) / C(n, k)`. Of independent texts it is an unbiased estimate of pass@k (Chen et al., arXiv 2107.03374).
fn pass_at(k: usize, n: usize, right: usize) -> f64 {
    let wrong = n - right;
    if wrong < k {
        return 1.0;
    }
    1.0 - (0..k).map(|i| (wrong - i) as f64 / (n - i) as f64).product::<f64>()
}

/// Options of an evaluation.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Options {
    /// The file of problems.
    pub file: PathBuf,
    /// Number of solved examples before every problem.
    pub shots: usize,
    /// The file of examples; by default they are the first problems of the same file, which are then not asked.
    pub examples: Option<PathBuf>,
    /// Largest number of problems.
    pub limit: Option<u64>,
    /// Texts per problem.
    pub samples: usize,
    /// pass@k is estimated for 1 and this k.
    pub k: usize,
    /// How to write them.
    #[serde(flatten)]
    pub writing: Writing,
}

/// Everything that the numbers depend on.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Command and weights.
    #[serde(flatten)]
    pub origin: Origin,
    /// What was asked for.
    #[serde(flatten)]
    pub options: Options,
    /// SHA-256 of the file of problems.
    pub file_sha256: String,
    /// SHA-256 of the file of examples, if it is a separate one.
    pub examples_sha256: Option<String>,
    /// Number of problems.
    pub problems: usize,
    /// Most tokens of a prompt that the model reads.
    pub prompt_tokens_read: usize,
    /// Number of longer prompts, whose beginning is not read.
    pub prompts_cut: usize,
}

impl Settings {
    /// A note on prompts that are not read completely, if there are any.
    pub fn cut(&self) -> Option<String> {
        let Self { problems, prompt_tokens_read: read, prompts_cut: cut, .. } = self;
        (*cut > 0).then(|| {
            format!("{cut} of {problems} prompts are longer than the {read} tokens the model reads; their beginning is not read")
        })
    }
}

/// The result of an evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct Solved {
    /// Everything that the numbers depend on.
    pub settings: Settings,
    /// Share of the texts that give an answer, right or wrong.
    pub answered: f64,
    /// One result per k.
    pub results: Vec<Pass>,
    /// The file with the texts.
    #[serde(skip)]
    pub transcript: PathBuf,
    /// Number of texts from an earlier evaluation.
    #[serde(skip)]
    pub kept: usize,
}

/// The outcome of an evaluation.
pub enum Outcome {
    /// Every problem has its texts.
    Done(Box<Solved>),
    /// It was stopped; this file has the texts so far, and the same evaluation continues after them.
    Stopped(PathBuf),
}

/// The share of problems that one of k texts solves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pass {
    /// The number k of texts, of which one must be right.
    pub k: usize,
    /// Mean over problems.
    pub pass: f64,
    /// Its standard error over problems; `null` if all problems have the same result.
    pub standard_error: f64,
    /// A bound on the share if no problem or every problem is solved.
    #[serde(rename = "bound_95_percent")]
    pub bound: Option<Bound>,
}

/// A one-sided 95 % confidence bound.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// An upper bound, if no problem is solved.
    AtMost(f64),
    /// A lower bound, if every problem is solved.
    AtLeast(f64),
}

/// A line of the transcript.
#[derive(Serialize, Deserialize)]
struct Line {
    problem: usize,
    sample: usize,
    prompt: String,
    text: String,
    answer: Option<String>,
    expected: Option<String>,
    right: bool,
}

/// Tests the model of `run` on problems for `command`. The texts are appended to the file at `transcript`, by default
/// one in the run's folder; texts that it already has from the same evaluation are reused. Calls `progress` before
/// each new text with the number of texts done, the total, and pass@k over complete problems; it returns whether to
/// continue.
///
/// # Errors
/// If files cannot be read, the transcript has another origin, there are too few problems or too many texts, or k
/// exceeds the number of texts, and those of [`Writer`](ltm::generate::Writer).
pub fn solve(
    run: &Run,
    model: &mut Loaded,
    options: Options,
    command: &str,
    transcript: Option<&Path>,
    mut progress: impl FnMut(usize, usize, f64) -> bool,
) -> Result<Outcome> {
    let Options { shots, samples: n, k, .. } = options;
    if k == 0 || k > n {
        return Err(Error::usage(format!("pass@{k} of {n} texts: k must be from 1 to the number of texts")));
    }
    let (examples, problems) = problems(&options)?;
    let count = problems.len();
    let texts = n.saturating_mul(count);
    let mut writer = writer(model, options.writing.clone(), texts as u64)?;
    let prompts: Vec<String> = problems.iter().map(|problem| prompt(&examples, problem)).collect();
    // Latents are inferred from `seq` pairs of a token and its successor.
    let read = model.config.model.seq;
    let mut cut = 0;
    for (i, prompt) in prompts.iter().enumerate() {
        let begun = writer.beginning(Some(prompt)).map_err(|e| e.at(format_args!("problem {}", i + 1)))?;
        cut += usize::from(begun.len() > read + 1);
    }
    let settings = Settings {
        origin: Origin::new(run, model, command),
        file_sha256: sha256_file(&options.file)?,
        examples_sha256: options.examples.as_deref().map(sha256_file).transpose()?,
        options,
        problems: count,
        prompt_tokens_read: read,
        prompts_cut: cut,
    };
    let name = format!("gsm8k-{shots}-shot");
    let (mut transcript, mut lines) = Transcript::resume::<Line>(transcript, &run.path, &name, &settings, &FREE)?;
    let kept = lines.len();
    if kept > texts || lines.iter().enumerate().any(|(t, line)| (line.problem, line.sample) != (t / n, t % n)) {
        let path = transcript.path.display();
        return Err(Error::new(format!("{path}: its texts are not numbered as this evaluation numbers them")));
    }
    let mut share = pass(k, n, &lines).pass;
    // A text depends only on the seed and its own number, so earlier texts may be generated or read.
    for t in kept..texts {
        if !progress(t, texts, share) {
            return Ok(Outcome::Stopped(transcript.path));
        }
        let (problem, sample) = (t / n, t % n);
        let prompt = prompts[problem].clone();
        let text = writer
            .whole(&mut model.store, Some(&prompt), t as u32)
            .map_err(|e| e.at(format_args!("problem {}", problem + 1)))?;
        let (answer, expected) = (number(&text), number(&problems[problem].answer));
        let right = answer == expected;
        lines.push(Line { problem, sample, prompt, text, answer, expected, right });
        transcript.keep(&lines[t])?;
        if sample + 1 == n {
            share = pass(k, n, &lines).pass;
        }
    }
    let mut ks = vec![1, k];
    ks.dedup();
    Ok(Outcome::Done(Box::new(Solved {
        settings,
        answered: lines.iter().filter(|line| line.answer.is_some()).count() as f64 / texts as f64,
        results: ks.into_iter().map(|k| pass(k, n, &lines)).collect(),
        transcript: transcript.path,
        kept,
    })))
}

/// Examples, and the problems to ask.
fn problems(options: &Options) -> Result<(Vec<Problem>, Vec<Problem>)> {
    let (file, shots) = (&options.file, options.shots);
    let mut problems = read(file)?;
    let mut examples = match &options.examples {
        Some(path) => read(path)?,
        None => problems.drain(..shots.min(problems.len())).collect(),
    };
    if examples.len() < shots {
        let there = examples.len();
        return Err(Error::usage(format!("{shots} examples: there are only {there} problems to choose from")));
    }
    examples.truncate(shots);
    // A problem that is among the examples is not asked, even if it comes from another file or has other spaces around
    // it.
    problems.retain(|problem| examples.iter().all(|example| example.asked() != problem.asked()));
    problems.truncate(options.limit.map_or(usize::MAX, |limit| limit as usize));
    if problems.is_empty() {
        let file = file.display();
        return Err(Error::usage(format!("{file} has no problem left after {shots} examples")));
    }
    Ok((examples, problems))
}

/// pass@k over the problems that have all of their `n` texts.
fn pass(k: usize, n: usize, lines: &[Line]) -> Pass {
    let right = |texts: &[Line]| texts.iter().filter(|line| line.right).count();
    let each: Vec<f64> = lines.chunks_exact(n).map(|texts| pass_at(k, n, right(texts))).collect();
    let Mean { mean, error } = Mean::of(&each);
    let (differ, away) = (each.iter().any(|&x| x != each[0]), 1.0 - 0.05f64.powf(1.0 / each.len() as f64));
    let bound = match each.first() {
        Some(0.0) if !differ => Some(Bound::AtMost(away)),
        Some(1.0) if !differ => Some(Bound::AtLeast(1.0 - away)),
        _ => None,
    };
    Pass { k, pass: mean, standard_error: if differ { error } else { f64::NAN }, bound }
}

#[cfg(test)]
mod tests;
