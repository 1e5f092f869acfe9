use ltm::run::{Cost, Line, Trouble};

/// A step, the mean of several, or a validation.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The step.
    pub step: f64,
    /// Training tokens so far.
    pub tokens: f64,
    /// Seconds of the steps so far, in all sessions, without validations and checkpoints.
    pub seconds: f64,
    /// The cost of the text.
    pub cost: Cost,
    /// Slow learning rate of a step.
    pub rate: f64,
    /// Norm of a step's gradient.
    pub grad_norm: f64,
}

/// A problem that did not stop the run, with all its occurrences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The kind; `None` for a skipped update.
    pub trouble: Option<Trouble>,
    /// The first message.
    pub message: String,
    /// The steps at which it occurred.
    pub steps: Vec<u64>,
}

/// How training went.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Steps.
    pub steps: Vec<Point>,
    /// Validations; they have no rate and no gradient.
    pub validations: Vec<Point>,
    /// Steps, and samples of text after them.
    pub samples: Vec<(u64, String)>,
    /// Problems, each kind once.
    pub troubles: Vec<Seen>,
}

impl History {
    /// Reads the history from metrics.
    pub fn of(lines: &[Line]) -> Self {
        let mut history = Self::default();
        let (mut tokens, mut seconds) = (0.0, 0.0);
        for line in lines {
            let step = line.step() as f64;
            match line {
                Line::Step(line) => {
                    tokens += line.tokens as f64;
                    seconds += line.seconds;
                    let (cost, rate, grad_norm) = (line.cost, line.rate, line.grad_norm);
                    history.steps.push(Point { step, tokens, seconds, cost, rate, grad_norm });
                    if let Some(reason) = &line.skipped {
                        history.see(None, line.step, reason);
                    }
                }
                Line::Validation(line) => {
                    let (rate, grad_norm) = (f64::NAN, f64::NAN);
                    history.validations.push(Point { step, tokens, seconds, cost: line.cost, rate, grad_norm });
                }
                Line::Trouble(line) => history.see(Some(line.trouble), line.step, &line.message),
                Line::Sample(line) => history.samples.push((line.step, line.sample.clone())),
            }
        }
        history
    }

    fn see(&mut self, trouble: Option<Trouble>, step: u64, message: &str) {
        match self.troubles.iter_mut().find(|seen| seen.trouble == trouble) {
            Some(seen) => seen.steps.push(step),
            None => self.troubles.push(Seen { trouble, message: message.into(), steps: vec![step] }),
        }
    }

    /// The number of steps per mean, such that there are at most `count` means; and the means. The first may be of fewer
    /// steps, the last never is.
    pub fn means(&self, count: usize) -> (usize, Vec<Point>) {
        let window = self.steps.len().div_ceil(count).max(1);
        (window, self.steps.rchunks(window).rev().map(mean).collect())
    }
}

/// The mean of points, without non-finite losses, because a single one would hide its neighbours.
fn mean(points: &[Point]) -> Point {
    let mean = |of: fn(&Point) -> f64| {
        let finite: Vec<f64> = points.iter().map(of).filter(|x| x.is_finite()).collect();
        finite.iter().sum::<f64>() / finite.len() as f64
    };
    Point {
        step: mean(|p| p.step),
        tokens: mean(|p| p.tokens),
        seconds: mean(|p| p.seconds),
        cost: Cost {
            loss: mean(|p| p.cost.loss),
            nll: mean(|p| p.cost.nll),
            kl: mean(|p| p.cost.kl),
            bits_per_byte: mean(|p| p.cost.bits_per_byte),
        },
        rate: mean(|p| p.rate),
        grad_norm: mean(|p| p.grad_norm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::json;

    fn step(step: usize, loss: &str, more: &str) -> String {
        format!(
            "{{\"step\":{step},\"loss\":{loss},\"nll\":2.0,\"kl\":1.0,\"bits_per_byte\":4.0,\"tokens\":10,\"grad_norm\":1,\"rate\":0.5,\
             \"fast_rate\":1,\"seconds\":0.5,\"tokens_per_second\":20{more}}}"
        )
    }

    #[test]
    fn steps_validations_and_troubles_are_told_apart() {
        let ignored =
            |step| format!("{{\"step\":{step},\"trouble\":\"latents_ignored\",\"message\":\"the decoder {step}\"}}");
        let lines = [
            step(1, "3.0", ""),
            "{\"step\":1,\"protocol\":\"elbo\",\"sequences\":4,\"loss\":2.5,\"nll\":2.0,\"kl\":0.5,\"draw_error\":null,\
             \"bits_per_byte\":3,\"nats_per_sequence\":80,\"kl_per_sequence\":null}"
                .into(),
            step(2, "null", ",\"skipped\":\"not finite\""),
            ignored(2),
            step(3, "null", ",\"skipped\":\"not finite either\""),
            ignored(3),
            "{\"step\":3,\"sample\":\"a bird\"}".into(),
        ];
        let history = History::of(&lines.map(|line| json::from_bytes(line).unwrap()));
        let course = |points: &[Point]| points.iter().map(|p| [p.step, p.tokens, p.seconds]).collect::<Vec<_>>();
        assert_eq!(course(&history.steps), [[1.0, 10.0, 0.5], [2.0, 20.0, 1.0], [3.0, 30.0, 1.5]]);
        assert_eq!(course(&history.validations), [[1.0, 10.0, 0.5]]);
        assert!(history.steps[1].cost.loss.is_nan() && history.validations[0].cost.loss == 2.5);
        let seen = |trouble, message: &str| Seen { trouble, message: message.into(), steps: vec![2, 3] };
        let ignored = Some(Trouble::LatentsIgnored);
        assert_eq!(history.troubles, [seen(None, "not finite"), seen(ignored, "the decoder 2")]);
        assert_eq!(history.samples, [(3, "a bird".into())]);
    }

    #[test]
    fn means_are_few_and_leave_out_what_is_not_finite() {
        let history = |losses: &[&str]| {
            let lines = losses.iter().zip(1..).map(|(loss, i)| json::from_bytes(step(i, loss, "")).unwrap());
            History::of(&lines.collect::<Vec<_>>())
        };
        let losses = |history: History, count| {
            let (window, means) = history.means(count);
            (window, means.iter().map(|p| p.cost.loss).collect::<Vec<_>>())
        };
        assert_eq!(losses(history(&["1", "2", "null", "4", "8"]), 3), (2, vec![1.0, 2.0, 6.0]));
        assert_eq!(losses(history(&["1", "2"]), 40), (1, vec![1.0, 2.0]));
        assert_eq!(losses(history(&[]), 40), (1, vec![]));
        let (_, hidden) = losses(history(&["null", "null", "3", "3"]), 2);
        assert!(hidden[0].is_nan() && hidden[1] == 3.0);
        let (_, means) = history(&["1", "2", "3", "4"]).means(2);
        assert_eq!(means.iter().map(|p| [p.step, p.rate]).collect::<Vec<_>>(), [[1.5, 0.5], [3.5, 0.5]]);
    }
}
