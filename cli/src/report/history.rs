//! What `metrics.jsonl` tells: the course of a run.

use engine::{Error, Result};
use ltm::json;
use ltm::run::Line;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Points of a curve at most: more than a screen shows.
const POINTS: usize = 300;

/// A step, the mean of several, or a validation.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub step: f64,
    /// Tokens trained on so far.
    pub tokens: f64,
    /// NLL and KL in nats per token.
    pub nll: f64,
    pub kl: f64,
    /// Their sum.
    pub loss: f64,
    pub bits_per_byte: f64,
}

/// The course of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Steps, or means of as many steps as it takes to have few points.
    pub steps: Vec<Point>,
    pub validations: Vec<Point>,
    /// The last step itself.
    pub last: Option<Point>,
    /// What went wrong during training, with the step.
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
        for line in lines {
            match line {
                Line::Step(line) => {
                    let (step, nll, kl, loss) = (line.step as f64, line.nll, line.kl, line.loss);
                    tokens += line.tokens as f64;
                    history.steps.push(Point { step, tokens, nll, kl, loss, bits_per_byte: line.bits_per_byte });
                    history.troubles.extend(line.skipped.map(|why| format!("step {step} was skipped: {why}")));
                }
                Line::Validation(line) => {
                    let (step, nll, kl, loss) = (line.step as f64, line.nll, line.kl, line.loss);
                    history.validations.push(Point { step, tokens, nll, kl, loss, bits_per_byte: line.bits_per_byte });
                }
                Line::Trouble(line) => history.troubles.push(format!("step {}: {}", line.step, line.message)),
            }
        }
        history.last = history.steps.last().copied();
        history.steps = thinned(&history.steps);
        Ok(history)
    }
}

/// The lines of the file at `path`, `None` if there is none, and a note where lines could not be read, if there are such.
///
/// # Errors
/// If there is a file that cannot be read.
pub fn objects<T: DeserializeOwned>(path: &Path) -> Result<(Option<Vec<T>>, Option<String>)> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok((None, None)),
        Err(e) => return Err(Error::io("read", path, &e)),
    };
    let mut values = Vec::new();
    let mut damaged = Vec::new();
    for (i, line) in text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match json::from_bytes(line) {
            Ok(value) => values.push(value),
            Err(error) => damaged.push((i + 1, error)),
        }
    }
    let note = damaged.first().map(|(number, error)| {
        let more = if damaged.len() > 1 { format!(", and {} more", damaged.len() - 1) } else { String::new() };
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
        fs::write(&path, text).unwrap();
        History::read(&path).unwrap()
    }

    /// A step's line with these entries.
    fn step(step: usize, tokens: usize, more: &str) -> String {
        format!(
            "{{\"step\":{step},\"nll\":2.0,\"kl\":1.0,\"bits_per_byte\":4.0,\"tokens\":{tokens},\"grad_norm\":1,\"rate\":1,\
             \"fast_rate\":1,\"seconds\":1,\"tokens_per_second\":1,{more}}}\n"
        )
    }

    #[test]
    fn steps_validations_and_troubles_are_told_apart() {
        let validation = "{\"step\":1,\"protocol\":\"elbo\",\"sequences\":4,\"loss\":2.5,\"nll\":2,\"kl\":0.5,\"draw_error\":0,\
                          \"bits_per_byte\":4,\"nats_per_sequence\":60}\n";
        let history = read(
            &[
                &step(1, 10, "\"loss\":3.0"),
                validation,
                &step(2, 20, "\"loss\":null,\"skipped\":\"not finite\""),
                "{\"step\":2,\"trouble\":\"latents_ignored\",\"message\":\"the decoder <i>\"}\n",
            ]
            .concat(),
        );
        assert_eq!(history.steps.iter().map(|p| (p.step, p.tokens)).collect::<Vec<_>>(), [(1.0, 10.0), (2.0, 30.0)]);
        assert!(history.steps[0].nll == 2.0 && history.steps[1].loss.is_nan());
        assert_eq!(history.validations.iter().map(|p| (p.tokens, p.loss)).collect::<Vec<_>>(), [(10.0, 2.5)]);
        assert_eq!(history.troubles, ["step 2 was skipped: not finite", "step 2: the decoder <i>"]);
        assert!(history.notes.is_empty());
    }

    #[test]
    fn damage_is_named_by_its_line_and_the_rest_is_read() {
        let line = |i: usize| step(i, 1, &format!("\"loss\":{i}"));
        let history = read(&format!("{}{{\"step\":2,\"lo\n{}[1]\n{{\"st", line(1), line(3)));
        assert_eq!(history.steps.len(), 2);
        assert_eq!(history.notes.len(), 1);
        assert!(history.notes[0].contains("metrics.jsonl:2: a damaged line, and 2 more"), "{:?}", history.notes);
        let none = History::read(Path::new("none/metrics.jsonl")).unwrap();
        assert!(none.notes[0].contains("there is no none/metrics.jsonl"), "{:?}", none.notes);
    }

    #[test]
    fn long_courses_are_thinned_to_means() {
        let text: String = (1..=1000).map(|i| step(i, 1, &format!("\"loss\":{i}"))).collect();
        let history = read(&text);
        assert_eq!((history.steps.len(), history.steps[0].loss, history.steps[0].tokens), (250, 2.5, 2.5));
        assert_eq!(history.last.unwrap().loss, 1000.0);
    }
}
