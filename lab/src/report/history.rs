use ltm::run::{Cost, Line};

/// Points of a curve at most: more than a screen shows.
const POINTS: usize = 300;

/// A step, the mean of several, or a validation.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The step.
    pub step: f64,
    /// Training tokens so far.
    pub tokens: f64,
    /// What the text cost.
    pub cost: Cost,
}

/// How training went.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Steps, or means of as many steps as it takes to have few points.
    pub steps: Vec<Point>,
    /// Validations.
    pub validations: Vec<Point>,
    /// The last step itself.
    pub last: Option<Point>,
    /// Seconds that the steps took.
    pub seconds: f64,
    /// Steps and what the model wrote behind them.
    pub samples: Vec<(u64, String)>,
    /// What went wrong without stopping the run, with the step.
    pub troubles: Vec<String>,
}

impl History {
    /// What the metrics say.
    pub fn of(lines: &[Line]) -> Self {
        let mut history = Self::default();
        let mut tokens = 0.0;
        for line in lines {
            let step = line.step();
            let point = |tokens, cost| Point { step: step as f64, tokens, cost };
            match line {
                Line::Step(line) => {
                    tokens += line.tokens as f64;
                    history.seconds += line.seconds;
                    history.steps.push(point(tokens, line.cost));
                    let skipped = line.skipped.iter().map(|reason| format!("step {step} was skipped: {reason}"));
                    history.troubles.extend(skipped);
                }
                Line::Validation(line) => history.validations.push(point(tokens, line.cost)),
                Line::Sample(line) => history.samples.push((step, line.sample.clone())),
                Line::Trouble(line) => history.troubles.push(format!("step {step}: {}", line.message)),
            }
        }
        history.last = history.steps.last().copied();
        history.steps = thinned(&history.steps);
        history
    }
}

/// Means of neighbours, so that few points are left.
fn thinned(points: &[Point]) -> Vec<Point> {
    let group = points.len().div_ceil(POINTS).max(1);
    let groups = points.chunks(group).map(|points| {
        let mean = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
        let cost = Cost {
            loss: mean(|p| p.cost.loss),
            nll: mean(|p| p.cost.nll),
            kl: mean(|p| p.cost.kl),
            bits_per_byte: mean(|p| p.cost.bits_per_byte),
        };
        Point { step: mean(|p| p.step), tokens: mean(|p| p.tokens), cost }
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::json;

    fn step(step: usize, loss: &str, more: &str) -> String {
        format!(
            "{{\"step\":{step},\"loss\":{loss},\"nll\":2.0,\"kl\":1.0,\"bits_per_byte\":4.0,\"tokens\":10,\"grad_norm\":1,\"rate\":1,\
             \"fast_rate\":1,\"seconds\":0.5,\"tokens_per_second\":20{more}}}"
        )
    }

    #[test]
    fn steps_validations_and_troubles_are_told_apart_and_long_courses_thinned() {
        let lines = [
            &step(1, "3.0", ""),
            "{\"step\":1,\"protocol\":\"elbo\",\"sequences\":4,\"loss\":2.5,\"nll\":2.0,\"kl\":0.5,\"draw_error\":null,\
             \"bits_per_byte\":3,\"nats_per_sequence\":80,\"kl_per_sequence\":null}",
            &step(2, "null", ",\"skipped\":\"not finite\""),
            "{\"step\":2,\"trouble\":\"latents_ignored\",\"message\":\"the decoder <i>\"}",
            "{\"step\":2,\"sample\":\"a bird\"}",
        ];
        let history = History::of(&lines.map(|line| json::from_bytes(line).unwrap()));
        assert_eq!(history.steps.iter().map(|p| (p.step, p.tokens)).collect::<Vec<_>>(), [(1.0, 10.0), (2.0, 20.0)]);
        let [first, second] = [0, 1].map(|i| history.steps[i].cost);
        assert!(first.nll == 2.0 && second.loss.is_nan() && history.seconds == 1.0);
        assert_eq!(history.validations.iter().map(|p| (p.tokens, p.cost.loss)).collect::<Vec<_>>(), [(10.0, 2.5)]);
        assert_eq!(history.troubles, ["step 2 was skipped: not finite", "step 2: the decoder <i>"]);

        assert_eq!(history.samples, [(2, "a bird".into())]);

        let line = |i: usize| json::from_bytes(step(i, &i.to_string(), "")).unwrap();
        let history = History::of(&(1..=1000).map(line).collect::<Vec<_>>());
        assert_eq!((history.steps.len(), history.steps[0].cost.loss, history.steps[0].tokens), (250, 2.5, 25.0));
        assert_eq!(history.last.unwrap().cost.loss, 1000.0);
    }
}
