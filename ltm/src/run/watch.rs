//! Two ways in which latent variables are known to fail, noticed while a model learns.

use crate::config::Config;
use std::fmt;

/// Steps whose numbers are averaged. Verdicts fall behind steps that are multiples of it.
const WINDOW: u64 = 100;

/// Mean KL in nats per sequence below which latents say nothing: less than a choice between two values carries, with the
/// noise of hundreds of coordinates among it.
const IGNORED: f64 = 0.5;

/// Growth of the mean KL from one window to the next that counts, as a factor.
const GROWTH: f64 = 1.05;

/// Standard errors by which two windows must differ to be told apart.
const ERRORS: f64 = 3.0;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trouble {
    /// The posteriors are the prior: the decoder makes no use of its latents.
    Ignored {
        /// Mean KL, in nats per sequence.
        kl: f64,
    },
    /// The KL grows while the bound gets worse: fast steps walk at random, and the decoder learns to live with it.
    Runaway {
        /// On which text.
        on: Text,
        /// Steps between the two.
        steps: u64,
        /// Mean KL in nats per sequence, so many steps ago and now.
        kl: [f64; 2],
        /// Mean NLL and KL together in nats per token, so many steps ago and now.
        loss: [f64; 2],
    },
}

/// Where numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// The steps' own batches.
    Learnt,
    /// Validations.
    HeldOut,
}

impl Trouble {
    /// Its name in the metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ignored { .. } => "latents_ignored",
            Self::Runaway { .. } => "kl_runaway",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored { kl } => write!(
                f,
                "the decoder ignores its latents: mean KL of the last {WINDOW} steps {kl:.2} nats a sequence, below {IGNORED}; a shorter model.window, more fast.steps or fast.kl_warmup may help"
            ),
            Self::Runaway { on, steps, kl, loss } => {
                let on = if *on == Text::HeldOut { " on held-out text" } else { "" };
                write!(
                    f,
                    "the KL grows while the bound{on} gets worse: in {steps} steps from {:.2} to {:.2} nats a sequence, the bound from {:.4} to {:.4} nats a token; a lower fast.rate_end, or fast.posterior=natural, may help",
                    kl[0], kl[1], loss[0], loss[1]
                )
            }
        }
    }
}

/// Follows the steps of a run. What it says depends on the steps' numbers and on nothing else, so a run that goes on says what
/// the run that was never stopped would have said.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The last step that is not looked at: until then rates and weights rise, and so may everything.
    rising: u64,
    /// Whether the steps' losses are bounds: at the very noise that was fitted to they are none, and fall whatever becomes of
    /// the bound.
    bounds: bool,
    before: Option<Window>,
    now: Window,
    validated: Option<Validated>,
}

/// A validation's numbers.
#[derive(Clone, Copy, Debug)]
pub struct Validated {
    /// After which step.
    pub step: u64,
    /// Nats per sequence.
    pub kl: f64,
    /// Nats per token.
    pub loss: f64,
    /// Standard error of `loss` over the draws; the sequences are the same every time.
    pub error: f64,
}

impl Watch {
    /// A watch for a run from its first step on; `None` for a model without latents.
    pub fn new(config: &Config) -> Option<Self> {
        let rising = config.slow.warmup.max(config.fast.kl_warmup) as u64;
        let bounds = config.losses_are_bounds();
        let fresh = || Self { rising, bounds, before: None, now: Window::default(), validated: None };
        config.model.kind.has_latents().then(fresh)
    }

    /// Takes note of step number `step`: its KL in nats per sequence, and NLL and KL together in nats per token. A window that
    /// is complete may have something to say.
    pub fn step(&mut self, step: u64, kl: f64, loss: f64) -> Option<Trouble> {
        if step <= self.rising {
            return None;
        }
        self.now.add(kl, loss);
        if !step.is_multiple_of(WINDOW) {
            return None;
        }
        let now = std::mem::take(&mut self.now);
        // The first window may be a short one; half of it is enough to tell.
        if now.steps < WINDOW / 2 {
            return None;
        }
        let before = self.before.replace(now);
        if now.kl.mean() < IGNORED {
            return Some(Trouble::Ignored { kl: now.kl.mean() });
        }
        let before = before?;
        let grown = now.kl.mean() > GROWTH * before.kl.mean() && now.kl.is_above(&before.kl);
        (self.bounds && grown && now.loss.is_above(&before.loss)).then(|| Trouble::Runaway {
            on: Text::Learnt,
            steps: WINDOW,
            kl: [before.kl.mean(), now.kl.mean()],
            loss: [before.loss.mean(), now.loss.mean()],
        })
    }

    /// Takes note of a validation, whose loss is a bound whatever noise the steps learn from.
    pub fn validation(&mut self, now: Validated) -> Option<Trouble> {
        if now.step <= self.rising {
            return None;
        }
        let before = self.validated.replace(now)?;
        let worse = now.loss - before.loss > ERRORS * now.error.hypot(before.error);
        (now.kl > IGNORED && now.kl > GROWTH * before.kl && worse).then(|| Trouble::Runaway {
            on: Text::HeldOut,
            steps: now.step - before.step,
            kl: [before.kl, now.kl],
            loss: [before.loss, now.loss],
        })
    }
}

/// The sums of a window.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    steps: u64,
    kl: Sums,
    loss: Sums,
}

impl Window {
    fn add(&mut self, kl: f64, loss: f64) {
        self.steps += 1;
        self.kl.add(kl);
        self.loss.add(loss);
    }
}

/// Mean and spread by Welford's recurrence.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, x: f64) {
        self.count += 1.0;
        let step = x - self.mean;
        self.mean += step / self.count;
        self.squares += step * (x - self.mean);
    }

    fn mean(&self) -> f64 {
        self.mean
    }

    /// Squared standard error of the mean.
    fn error2(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }

    /// Whether the mean is above the other one by more than noise explains.
    fn is_above(&self, other: &Self) -> bool {
        self.mean - other.mean > ERRORS * (self.error2() + other.error2()).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Noise;
    use engine::rng::Stream;

    /// What is said about 600 steps whose KL and loss follow `course`, plus noise of a twentieth.
    fn said(course: impl Fn(f64) -> (f64, f64)) -> Vec<(u64, Trouble)> {
        let mut config = Config::preset("demo").unwrap();
        config.slow.warmup = 30;
        let mut watch = Watch::new(&config).unwrap();
        let noise = Stream::new(5, 5);
        let noisy = |x: f64, i: u64| x * (1.0 + 0.05 * noise.normal(i as u32));
        let steps = (1..=600).filter_map(|step| {
            let (kl, loss) = course(step as f64);
            watch.step(step, noisy(kl, 2 * step), noisy(loss, 2 * step + 1)).map(|trouble| (step, trouble))
        });
        steps.collect()
    }

    fn names(said: &[(u64, Trouble)]) -> Vec<(u64, &'static str)> {
        said.iter().map(|(step, trouble)| (*step, trouble.name())).collect()
    }

    #[test]
    fn sound_runs_are_left_alone() {
        assert_eq!(said(|t| (3.0 + t / 50.0, 2.0 - t / 600.0)), [], "KL grows as the bound gets better");
        assert_eq!(said(|t| (9.0 - t / 100.0, 2.0)), [], "KL falls");
        assert_eq!(said(|t| (9.0 - t / 100.0, 1.0 + t / 600.0)), [], "the bound gets worse for another reason");
        assert_eq!(said(|_| (5.0, 1.0)), [], "nothing but noise");
    }

    #[test]
    fn latents_that_are_ignored_are_noticed() {
        let all = said(|_| (0.1, 2.0));
        assert_eq!(names(&all), [100, 200, 300, 400, 500, 600].map(|step| (step, "latents_ignored")));
        let late = said(|t| (if t <= 300.0 { 4.0 } else { 0.2 }, 2.0 - t / 600.0));
        assert_eq!(names(&late), [400, 500, 600].map(|step| (step, "latents_ignored")));
        assert!(late[0].1.to_string().contains("0.20 nats a sequence, below 0.5"), "{}", late[0].1);
    }

    #[test]
    fn a_kl_that_runs_away_is_noticed() {
        let all = said(|t| (10.0 + t / 20.0, 1.0 + t / 600.0));
        assert_eq!(names(&all), [200, 300, 400, 500, 600].map(|step| (step, "kl_runaway")));
        let turning = said(|t| (10.0 + t / 20.0, 2.0 + (t - 300.0).abs() / 300.0));
        assert_eq!(names(&turning), [500, 600].map(|step| (step, "kl_runaway")));
    }

    #[test]
    fn held_out_text_tells_what_fixed_noise_hides() {
        let mut config = Config::preset("demo").unwrap();
        config.fast.noise = Noise::Fixed;
        let mut watch = Watch::new(&config).unwrap();
        // As a run at fixed noise went: its own loss means nothing.
        let worse = |step: u64| watch.step(step, 10.0 + step as f64 / 20.0, 1.0 + step as f64 / 600.0);
        assert!((1..=600).filter_map(worse).next().is_none());
        let mut told = |step, kl, loss| watch.validation(Validated { step, kl, loss, error: 0.005 });
        assert_eq!(told(20, 1.0, 3.0), None, "rates rise");
        assert_eq!(told(100, 1.9, 3.27), None, "the first");
        let trouble = told(200, 7.7, 3.32).unwrap();
        assert!(trouble.to_string().contains("held-out text gets worse: in 100 steps from 1.90 to 7.70"), "{trouble}");
        assert_eq!(told(300, 20.0, 3.30), None, "the bound gets better");
        assert_eq!(told(400, 30.0, 3.31), None, "within the noise of draws");
        assert_eq!(told(500, 30.0, 3.40), None, "the KL stays");
    }

    #[test]
    fn nothing_is_said_while_rates_rise_or_without_latents() {
        let mut config = Config::preset("demo").unwrap();
        config.fast.kl_warmup = 250;
        let mut watch = Watch::new(&config).unwrap();
        let said: Vec<u64> = (1..=400).filter(|&step| watch.step(step, 0.0, 1.0).is_some()).collect();
        assert_eq!(said, [300, 400]);
        config.model.kind = crate::config::ModelKind::Ar;
        assert!(Watch::new(&config).is_none());
    }
}
