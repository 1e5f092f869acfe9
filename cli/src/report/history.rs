//! What `metrics.jsonl` tells: the course of a run.

use engine::{Error, Result};
use ltm::json::{self, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

/// Points of a curve at most: more than a screen shows.
const POINTS: usize = 300;

/// A step, the mean of several, or a validation; numbers that are not there are not numbers.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub step: f64,
    /// Tokens learnt from so far.
    pub tokens: f64,
    /// NLL and KL in nats per token.
    pub nll: f64,
    pub kl: f64,
    /// Their sum.
    pub loss: f64,
    pub bits_per_byte: f64,
}

impl Point {
    fn of(line: &Value, step: f64, tokens: f64) -> Self {
        let number = |key: &str| line.get(key).and_then(|value| value.as_f64().ok()).unwrap_or(f64::NAN);
        let [nll, kl, loss, bits_per_byte] = ["nll", "kl", "loss", "bits_per_byte"].map(number);
        Self { step, tokens, nll, kl, loss, bits_per_byte }
    }
}

/// The course of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Steps, or means of as many steps as it takes to have few points.
    pub steps: Vec<Point>,
    pub validations: Vec<Point>,
    /// The last step itself.
    pub last: Option<Point>,
    /// What was noticed while it learnt, with the step.
    pub troubles: Vec<String>,
    /// What is missing or damaged.
    pub notes: Vec<String>,
}

impl History {
    /// Reads the file at `path`. That there is none, and lines that are damaged, become notes.
    ///
    /// # Errors
    /// If there is a file that cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let (lines, damaged) = objects(path)?;
        let mut history = Self { notes: damaged.into_iter().collect(), ..Self::default() };
        let Some(lines) = lines else {
            history.notes.push(format!("there is no {}: no curves of this run", path.display()));
            return Ok(history);
        };
        if lines.is_empty() && history.notes.is_empty() {
            history.notes.push(format!("{} is empty: no curves of this run", path.display()));
        }
        let mut tokens = 0.0;
        for line in &lines {
            let Ok(step) = line.read("step", Value::as_f64) else {
                history
                    .notes
                    .push(format!("{}: a line without a step, as of another version: left out", path.display()));
                continue;
            };
            let new = line.get("tokens").and_then(|value| value.as_f64().ok());
            if let Some(new) = new {
                tokens += new;
                history.steps.push(Point::of(line, step, tokens));
            } else if let Ok(message) = line.read("message", Value::as_str) {
                history.troubles.push(format!("step {step}: {message}"));
            } else if line.get("protocol").is_some() {
                history.validations.push(Point::of(line, step, tokens));
            }
            if let Ok(reason) = line.read("skipped", Value::as_str) {
                history.troubles.push(format!("step {step} was skipped: {reason}"));
            }
        }
        history.notes.dedup();
        history.last = history.steps.last().copied();
        history.steps = thinned(&history.steps);
        Ok(history)
    }
}

/// The lines of the file at `path`, `None` if there is none, and a note where lines could not be read, if there are such.
///
/// # Errors
/// If there is a file that cannot be read.
pub fn objects(path: &Path) -> Result<(Option<Vec<Value>>, Option<String>)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok((None, None)),
        Err(e) => return Err(Error::io("read", path, &e)),
    };
    let (mut reader, mut line, mut number) = (BufReader::new(file), Vec::new(), 0);
    let (mut values, mut damaged) = (Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line).map_err(|e| Error::io("read", path, &e))? > 0 {
        number += 1;
        match json::parse(&line) {
            Ok(value @ Value::Object(_)) => values.push(value),
            Ok(_) => damaged.push((number, "no JSON object".to_string())),
            Err(error) => damaged.push((number, error.to_string())),
        }
        line.clear();
    }
    let note = damaged.first().map(|(number, error)| {
        let more = match damaged.len() {
            1 => String::new(),
            n => format!(", and {} more", n - 1),
        };
        format!("{}:{number}: a damaged line{more}, left out: {error}", path.display())
    });
    Ok((Some(values), note))
}

/// Means of neighbours, so that few points are left.
fn thinned(points: &[Point]) -> Vec<Point> {
    let mean = |points: &[Point], of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let group = points.len().div_ceil(POINTS).max(1);
    let groups = points.chunks(group).map(|points| Point {
        step: mean(points, |p| p.step),
        tokens: mean(points, |p| p.tokens),
        nll: mean(points, |p| p.nll),
        kl: mean(points, |p| p.kl),
        loss: mean(points, |p| p.loss),
        bits_per_byte: mean(points, |p| p.bits_per_byte),
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> History {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, text).unwrap();
        History::read(&path).unwrap()
    }

    #[test]
    fn steps_validations_and_troubles_are_told_apart() {
        let history = read(concat!(
            "{\"step\":1,\"loss\":3.0,\"nll\":2.0,\"kl\":1.0,\"bits_per_byte\":4.0,\"tokens\":10}\n",
            "{\"step\":1,\"protocol\":\"elbo\",\"loss\":2.5}\n",
            "{\"step\":2,\"loss\":null,\"tokens\":20,\"skipped\":\"not finite\"}\n",
            "{\"step\":2,\"trouble\":\"latents_ignored\",\"message\":\"the decoder <i>\"}\n",
        ));
        assert_eq!(history.steps.iter().map(|p| (p.step, p.tokens)).collect::<Vec<_>>(), [(1.0, 10.0), (2.0, 30.0)]);
        assert!(history.steps[0].nll == 2.0 && history.steps[1].loss.is_nan());
        assert_eq!(history.validations.iter().map(|p| (p.tokens, p.loss)).collect::<Vec<_>>(), [(10.0, 2.5)]);
        assert_eq!(history.troubles, ["step 2 was skipped: not finite", "step 2: the decoder <i>"]);
        assert!(history.notes.is_empty());
    }

    #[test]
    fn damage_is_named_by_its_line_and_the_rest_is_read() {
        let line = |i: usize| format!("{{\"step\":{i},\"loss\":{i},\"tokens\":1}}\n");
        let history = read(&format!("{}{{\"step\":2,\"lo\n{}[1]\n{{\"st", line(1), line(3)));
        assert_eq!(history.steps.len(), 2);
        assert_eq!(history.notes.len(), 1);
        assert!(history.notes[0].contains("metrics.jsonl:2: a damaged line, and 2 more"), "{:?}", history.notes);
        let none = History::read(Path::new("none/metrics.jsonl")).unwrap();
        assert!(none.notes[0].contains("there is no none/metrics.jsonl"), "{:?}", none.notes);
    }

    #[test]
    fn long_courses_are_thinned_to_means() {
        let text: String = (1..=1000).map(|i| format!("{{\"step\":{i},\"loss\":{i},\"tokens\":1}}\n")).collect();
        let history = read(&text);
        assert_eq!((history.steps.len(), history.steps[0].loss, history.steps[0].tokens), (250, 2.5, 2.5));
        assert_eq!(history.last.unwrap().loss, 1000.0);
    }
}
