use super::{Line, StepLine, Trouble, TroubleLine, ValidationLine};
use crate::config::{Config, ModelConfig};
use crate::evaluate::Mean;
use std::mem::take;

/// Number of steps to average over. Checks happen after multiples of it.
const WINDOW: u64 = 100;

/// Mean KL in nats for each number of z below which latents carry no information. Noise in the gradients costs some KL for
/// every number. On random bytes (64 numbers, T = 8) it falls to between 0.0002 and 0.004 once the decoder has learned that
/// nothing helps; the least with which latents were seen to pay for themselves is 0.0041 (docs/recipe.md).
const IGNORED_KL: f64 = 0.004;

/// Mean KL in nats per sequence below which a decoder may ignore its latents.
pub fn ignored_kl(model: &ModelConfig) -> f64 {
    IGNORED_KL * (model.latent_count() * model.dim) as f64
}

/// Least growth of the mean KL from one window to the next that counts, as a factor.
const GROWTH: f64 = 1.05;

/// Standard errors by which two windows must differ.
const ERRORS: f64 = 3.0;

/// Detects two known failures of latent variables. The warnings depend only on the metrics, so a resumed run gives the
/// same warnings as an uninterrupted one.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Samples per step.
    batch: f64,
    /// The last ignored step: until then the slow rate rises, and other numbers may rise too.
    rising: u64,
    /// See [`ignored_kl`].
    ignored: f64,
    /// Whether the steps' losses are bounds: with fixed noise they are not, and may fall while the bound rises.
    bounds: bool,
    /// KL in nats per sequence and loss in nats per token of the window's steps.
    kl: Vec<f64>,
    loss: Vec<f64>,
    /// Their means in the window before.
    before: Option<[Mean; 2]>,
    /// Step, KL in nats per sequence and loss in nats per token of the latest validation.
    validated: Option<(u64, f64, Mean)>,
}

impl Watch {
    /// A watch for a run from its first step on; `None` for a model that infers no latents.
    pub fn new(config: &Config) -> Option<Self> {
        config.model.kind.infers().then(|| Self {
            batch: config.train.batch as f64,
            rising: config.slow.warmup as u64,
            ignored: ignored_kl(&config.model),
            bounds: config.losses_are_bounds(),
            kl: Vec::new(),
            loss: Vec::new(),
            before: None,
            validated: None,
        })
    }

    /// Processes a line of the metrics; lines without numbers are ignored.
    pub fn line(&mut self, line: &Line) -> Option<TroubleLine> {
        match line {
            Line::Step(line) => self.step(line),
            Line::Validation(line) => self.validation(line),
            Line::Trouble(_) | Line::Sample(_) => None,
        }
    }

    /// Checks a complete window.
    fn step(&mut self, line: &StepLine) -> Option<TroubleLine> {
        let step = line.step;
        let (kl, loss) = (line.cost.kl, line.cost.loss);
        if step <= self.rising || !kl.is_finite() || !loss.is_finite() {
            return None;
        }
        self.kl.push(kl * line.tokens as f64 / self.batch);
        self.loss.push(loss);
        if !step.is_multiple_of(WINDOW) {
            return None;
        }
        let now = [take(&mut self.kl), take(&mut self.loss)];
        // The first window may be short; half a window is enough.
        if (now[0].len() as u64) < WINDOW / 2 {
            return None;
        }
        let [kl, loss] = now.map(|values| Mean::of(&values));
        let before = self.before.replace([kl, loss]);
        if kl.mean < self.ignored {
            return Some(TroubleLine {
                step,
                trouble: Trouble::LatentsIgnored,
                message: format!(
                    "the decoder ignores its latents: the mean KL of the last {WINDOW} steps is {:.2} nats per \
                     sequence, below {:.2}; a shorter model.window or more fast.steps may help",
                    kl.mean, self.ignored
                ),
            });
        }
        let [old_kl, old_loss] = before?;
        let grown = kl.mean > GROWTH * old_kl.mean && is_above(kl, old_kl);
        (self.bounds && grown && is_above(loss, old_loss))
            .then(|| runaway(step, "", WINDOW, [old_kl.mean, kl.mean], [old_loss.mean, loss.mean]))
    }

    /// The loss of a validation is a bound for any training noise.
    fn validation(&mut self, line: &ValidationLine) -> Option<TroubleLine> {
        let (step, kl) = (line.step, line.kl_per_sequence);
        let loss = Mean { mean: line.cost.loss, error: line.draw_error };
        if step <= self.rising || ![kl, loss.mean, loss.error].iter().all(|x| x.is_finite()) {
            return None;
        }
        let (since, old_kl, old_loss) = self.validated.replace((step, kl, loss))?;
        (kl > self.ignored && kl > GROWTH * old_kl && is_above(loss, old_loss))
            .then(|| runaway(step, " on validation text", step - since, [old_kl, kl], [old_loss.mean, loss.mean]))
    }
}

/// KL in nats per sequence and loss in nats per token, `steps` steps ago and now.
fn runaway(step: u64, on: &str, steps: u64, kl: [f64; 2], loss: [f64; 2]) -> TroubleLine {
    let message = format!(
        "the KL grows while the bound{on} gets worse: in {steps} steps the KL went from {:.2} to {:.2} nats per \
         sequence, the bound from {:.4} to {:.4} nats per token; a lower fast.rate_end, or fast.posterior=natural, \
         may help",
        kl[0], kl[1], loss[0], loss[1]
    );
    TroubleLine { step, trouble: Trouble::KlRunaway, message }
}

/// Whether `now` is above `before` by more than noise.
fn is_above(now: Mean, before: Mean) -> bool {
    now.mean - before.mean > ERRORS * now.error.hypot(before.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Noise;
    use crate::evaluate::{Protocol, Total};
    use crate::train::StepReport;
    use engine::rng::Stream;

    /// A step of one sample of ten tokens, whose KL and loss are these.
    fn step(step: u64, kl: f64, loss: f64) -> StepLine {
        let report = StepReport { step, kl, nll: 10.0 * loss - kl, tokens: 10, ..StepReport::default() };
        StepLine::new(&report, None, 1.0)
    }

    fn config() -> Config {
        let mut config = Config::preset("demo").unwrap();
        config.train.batch = 1;
        config
    }

    /// The warnings for 600 steps whose KL and loss follow `course`, plus noise of a twentieth.
    fn said(course: impl Fn(f64) -> (f64, f64)) -> Vec<TroubleLine> {
        let mut config = config();
        config.slow.warmup = 30;
        let mut watch = Watch::new(&config).unwrap();
        let noise = Stream::new(5, 5);
        let noisy = |x: f64, i: u64| x * (1.0 + 0.05 * noise.normal(i as u32));
        let steps = (1..=600).filter_map(|i| {
            let (kl, loss) = course(i as f64);
            watch.step(&step(i, noisy(kl, 2 * i), noisy(loss, 2 * i + 1)))
        });
        steps.collect()
    }

    fn names(said: &[TroubleLine]) -> Vec<(u64, Trouble)> {
        said.iter().map(|line| (line.step, line.trouble)).collect()
    }

    #[test]
    fn sound_runs_are_left_alone() {
        assert_eq!(said(|t| (3.0 + t / 50.0, 2.0 - t / 600.0)), [], "KL grows as the bound gets better");
        assert_eq!(said(|t| (9.0 - t / 100.0, 2.0)), [], "KL falls");
        assert_eq!(said(|t| (9.0 - t / 100.0, 1.0 + t / 600.0)), [], "the bound gets worse for another reason");
        assert_eq!(said(|_| (5.0, 1.0)), [], "nothing but noise");
    }

    #[test]
    fn latents_that_are_ignored_and_a_kl_that_runs_away_are_noticed() {
        let all = said(|_| (0.1, 2.0));
        assert_eq!(names(&all), [100, 200, 300, 400, 500, 600].map(|step| (step, Trouble::LatentsIgnored)));
        let late = said(|t| (if t <= 300.0 { 4.0 } else { 0.2 }, 2.0 - t / 600.0));
        assert_eq!(names(&late), [400, 500, 600].map(|step| (step, Trouble::LatentsIgnored)));
        assert!(late[0].message.contains("0.20 nats per sequence, below 0.51;"), "{late:?}");

        let all = said(|t| (10.0 + t / 20.0, 1.0 + t / 600.0));
        assert_eq!(names(&all), [200, 300, 400, 500, 600].map(|step| (step, Trouble::KlRunaway)));
        let turning = said(|t| (10.0 + t / 20.0, 2.0 + (t - 300.0).abs() / 300.0));
        assert_eq!(names(&turning), [500, 600].map(|step| (step, Trouble::KlRunaway)));
    }

    #[test]
    fn validation_text_tells_what_fixed_noise_hides() {
        let mut config = config();
        config.fast.noise = Noise::Fixed;
        let mut watch = Watch::new(&config).unwrap();
        // From a run with fixed noise, whose training loss means nothing.
        let worse = |i: u64| watch.step(&step(i, 10.0 + i as f64 / 20.0, 1.0 + i as f64 / 600.0));
        assert!((1..=600).filter_map(worse).next().is_none());
        let mut told = |step, kl, loss| {
            let mut line = ValidationLine::new(step, Protocol::Elbo, &Total::default(), None);
            (line.cost.loss, line.draw_error, line.kl_per_sequence) = (loss, 0.005, kl);
            watch.validation(&line)
        };
        assert_eq!(told(20, 1.0, 3.0), None, "rates rise");
        assert_eq!(told(100, 1.9, 3.27), None, "the first");
        let trouble = told(200, 7.7, 3.32).unwrap().message;
        assert!(
            trouble.contains("validation text gets worse: in 100 steps the KL went from 1.90 to 7.70"),
            "{trouble}"
        );
        assert_eq!(told(300, 20.0, 3.30), None, "the bound gets better");
        assert_eq!(told(400, 30.0, 3.31), None, "within the noise of draws");
        assert_eq!(told(500, 30.0, 3.40), None, "the KL stays");
    }

    #[test]
    fn nothing_is_said_while_rates_rise_or_without_latents() {
        let mut config = config();
        config.slow.warmup = 250;
        let mut watch = Watch::new(&config).unwrap();
        let said: Vec<u64> = (1..=400).filter(|&i| watch.step(&step(i, 0.0, 1.0)).is_some()).collect();
        assert_eq!(said, [300, 400]);
        config.model.kind = crate::config::ModelKind::Ar;
        assert!(Watch::new(&config).is_none());
    }
}
