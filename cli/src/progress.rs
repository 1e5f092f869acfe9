//! How far things are: a bar where somebody looks at a terminal, plain lines elsewhere.

use super::output::note;
use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};
use lab::table::{digits, si, visible};
use ltm::config::{Config, ModelKind};
use ltm::run::{Line, Progress, SampleLine, ValidationLine};
use std::time::{Duration, Instant};

/// A bar on the standard error; invisible if that is no terminal.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("━╸ "))
}

/// Does `work` behind a bar: tell what it is given how much is done, and of how much.
pub fn behind_bar<T>(template: &str, work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    let bar = bar(1, template);
    let done = work(&mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    done
}

/// Share of the past in the running averages that are shown.
const DECAY: f64 = 0.9;

/// Seconds between plain lines.
const PAUSE: Duration = Duration::from_secs(5);

/// What is shown of a training run.
pub struct Training {
    pub bar: ProgressBar,
    config: Config,
    last_line: Option<Instant>,
    /// Running sums over the recent steps: NLL, KL, tokens, bytes, seconds, steps.
    recent: [f64; 6],
}

impl Training {
    /// A display of a run of which `done` steps are done.
    pub fn new(config: &Config, done: u64) -> Self {
        let bar = bar(config.train.steps as u64, "{bar:24} {pos}/{len}  {msg}");
        bar.set_position(done);
        Self { bar, config: config.clone(), last_line: None, recent: [0.0; 6] }
    }

    /// Shows a step.
    pub fn show(&mut self, progress: &Progress) {
        let report = &progress.report;
        progress.warnings.iter().for_each(|warning| self.say(&format!("warning: {warning}")));
        // A step without numbers would spoil the averages for good.
        if report.skipped.is_none() {
            let (tokens, bytes) = (report.tokens as f64, report.bytes as f64);
            let step = [report.nll, report.kl, tokens, bytes, progress.seconds, 1.0];
            self.recent.iter_mut().zip(step).for_each(|(sum, x)| *sum = DECAY * *sum + x);
        }
        let text = self.text(report.step);
        let pause_over = self.last_line.is_none_or(|at| at.elapsed() >= PAUSE);
        let steps = self.config.train.steps as u64;
        if self.bar.is_hidden() && (pause_over || report.step == steps) {
            note(format_args!("step {}/{steps}  {text}", report.step));
            self.last_line = Some(Instant::now());
        }
        self.bar.set_message(text);
        self.bar.set_position(report.step);
        for line in &progress.lines {
            match line {
                Line::Validation(validation) => self.say(&validation_text(self.config.model.kind, validation)),
                Line::Sample(sample) => self.say(&sample_text(sample)),
                Line::Step(_) | Line::Trouble(_) => {}
            }
        }
    }

    /// Prints a line above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| note(line));
    }

    fn text(&self, step: u64) -> String {
        let [nll, kl, tokens, bytes, seconds, steps] = self.recent;
        let left = (self.config.train.steps as u64).saturating_sub(step) as f64 * seconds / steps;
        let mut parts = String::new();
        if self.config.model.kind.has_latents() {
            let status = if self.config.losses_are_bounds() { "" } else { " (fixed noise: not a bound)" };
            parts = format!("{status} = NLL {:.4} + KL {}", nll / tokens, digits(kl / tokens, 4));
        }
        format!(
            "loss {:.4}{parts} nats/token  {:.3} bits/byte  {} tokens/s  ETA {}",
            (nll + kl) / tokens,
            (nll + kl) / std::f64::consts::LN_2 / bytes,
            si(tokens / seconds, ""),
            FormattedDuration(Duration::try_from_secs_f64(left).unwrap_or_default())
        )
    }
}

/// A sample under its heading.
fn sample_text(line: &SampleLine) -> String {
    let text = visible(&line.sample);
    let text = text.lines().map(|line| format!("\n  {line}")).collect::<String>();
    format!("what the model writes after step {}:{text}", line.step)
}

/// A validation in one line.
fn validation_text(kind: ModelKind, line: &ValidationLine) -> String {
    let (step, nats, bits) = (line.step, line.nats_per_sequence, line.cost.bits_per_byte);
    let kl = line.kl_per_sequence;
    let parts = || format!("NELBO {nats:.2} = NLL {:.2} + KL {}", nats - kl, digits(kl, 2));
    let cost = if kind.has_latents() { parts() } else { format!("NLL {nats:.2}") };
    let exact = line.exact_nats_per_sequence.map(|exact| format!("; the least possible is {exact:.2} nats"));
    let exact = exact.unwrap_or_default();
    format!("validation after step {step}: {cost} nats/sequence, {bits:.3} bits/byte{exact}")
}
