//! Progress display: a bar on a terminal, plain lines elsewhere.

use super::output::{is_quiet, note, warn};
use console::Term;
use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle, TermLike,
};
use lab::table::{digits, si, visible};
use ltm::config::{Config, ModelKind};
use ltm::run::{Line, Progress, SampleLine, ValidationLine};
use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// All bars, so that lines can be printed above them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
    let plain = || ProgressDrawTarget::term_like_with_hz(Box::new(Plain::new()), 1);
    MultiProgress::with_draw_target(if is_terminal() { ProgressDrawTarget::stderr() } else { plain() })
});

/// Whether standard error is a terminal that can draw.
fn is_terminal() -> bool {
    console::user_attended_stderr() && !console::is_dumb()
}

/// The width of the terminal.
fn columns() -> usize {
    Term::stderr().size().1.into()
}

/// Narrower terminals show the percentage but no counts.
const NARROW: usize = 60;

/// The length of a bar.
fn bar_width() -> usize {
    (columns() / 12).clamp(4, 24)
}

/// Writes to standard error, above a bar if there is one.
pub fn aside(write: impl FnOnce()) {
    BARS.suspend(write);
}

/// A bar on standard error; without a terminal, a line with its text from time to time. A long message is cut off.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let template = match (is_terminal(), template.contains("{bar}")) {
        (false, _) => template.replace("{bar} ", ""),
        (true, true) if columns() < NARROW => "{bar} {percent}%  {eta}  {wide_msg}".into(),
        _ => template.into(),
    };
    let template = template.replace("{bar}", &format!("{{bar:{}}}", bar_width()));
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    if is_quiet() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length).with_style(style.progress_chars("━╸ ")).with_finish(ProgressFinish::AndClear);
    BARS.add(bar)
}

/// A substitute if there is no terminal.
#[derive(Debug)]
struct Plain(Mutex<(String, Instant)>);

impl Plain {
    /// Seconds between two lines, and before the first.
    const PAUSE: Duration = Duration::from_secs(10);

    fn new() -> Self {
        Self(Mutex::new((String::new(), Instant::now())))
    }

    fn state(&self) -> MutexGuard<'_, (String, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TermLike for Plain {
    fn width(&self) -> u16 {
        200
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.state().0.push_str(text);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let (text, last) = &mut *self.state();
        let line = std::mem::take(text);
        if line.trim().is_empty() || last.elapsed() < Self::PAUSE {
            return Ok(());
        }
        *last = Instant::now();
        writeln!(io::stderr().lock(), "{}", line.trim())
    }

    fn write_line(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
}

/// Does `work` with a bar; `work` calls its argument with the amount done and the total.
pub fn behind_bar<T>(template: &str, work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    let bar = bar(1, template);
    let done = work(&mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    done
}

/// Weight of the past in the displayed running averages.
const DECAY: f64 = 0.9;

/// Seconds between plain lines.
const PAUSE: Duration = Duration::from_secs(5);

/// The display of a training run.
pub struct Training {
    pub bar: ProgressBar,
    config: Config,
    last_line: Option<Instant>,
    /// Running sums over the recent steps: NLL, KL, tokens, bytes, seconds, steps.
    recent: [f64; 6],
}

impl Training {
    /// The display of a run after `done` steps.
    pub fn new(config: &Config, done: u64) -> Self {
        // Elsewhere the lines of `show` have more information.
        let bar = if is_terminal() {
            bar(config.train.steps as u64, "{bar} {pos}/{len}  ETA {eta}  {wide_msg}")
        } else {
            ProgressBar::hidden()
        };
        bar.set_position(done);
        bar.reset_eta();
        Self { bar, config: config.clone(), last_line: None, recent: [0.0; 6] }
    }

    /// Shows a step.
    pub fn show(&mut self, progress: &Progress) {
        let report = &progress.report;
        warn(&progress.warnings);
        // A step with NaN would spoil the averages permanently, and averages of earlier steps would be misleading here.
        let parts = if report.skipped.is_none() {
            let (tokens, bytes) = (report.tokens as f64, report.bytes as f64);
            let step = [report.nll, report.kl, tokens, bytes, progress.seconds, 1.0];
            self.recent.iter_mut().zip(step).for_each(|(sum, x)| *sum = DECAY * *sum + x);
            self.text()
        } else {
            vec!["skipped".into()]
        };
        let pause_over = self.last_line.is_none_or(|at| at.elapsed() >= PAUSE);
        let steps = self.config.train.steps as u64;
        if self.bar.is_hidden() && (pause_over || report.step == steps) {
            let [.., seconds, taken] = self.recent;
            // Nothing is known while every step was skipped.
            let left = Duration::try_from_secs_f64(steps.saturating_sub(report.step) as f64 * seconds / taken);
            let eta = left.map_or_else(|_| String::new(), |left| format!("  ETA {:#}", HumanDuration(left)));
            note(format_args!("step {}/{steps}{eta}  {}", report.step, parts.concat()));
            self.last_line = Some(Instant::now());
        }
        self.bar.set_message(fitting(parts, self.room()));
        self.bar.set_position(report.step);
        for line in &progress.lines {
            match line {
                Line::Validation(validation) => note(validation_text(self.config.model.kind, validation)),
                Line::Sample(sample) => note(sample_text(sample)),
                Line::Step(_) | Line::Trouble(_) => {}
            }
        }
    }

    /// The costs of recent steps, the most important part first.
    fn text(&self) -> Vec<String> {
        let [nll, kl, tokens, bytes, seconds, _] = self.recent;
        let status = if self.config.losses_are_bounds() { "" } else { " (fixed noise: not a bound)" };
        let mut parts = vec![format!("mean loss{status} {:.4}", (nll + kl) / tokens)];
        if self.config.model.kind.infers() {
            parts.push(format!(" = NLL {:.4} + KL {}", nll / tokens, digits(kl / tokens, 4)));
        }
        parts.push(" nats/token".into());
        parts.push(format!("  {:.3} bits/byte", (nll + kl) / std::f64::consts::LN_2 / bytes));
        parts.push(format!("  {} tokens/s", si(tokens / seconds, "")));
        parts
    }

    /// The columns left for a message beside the bar.
    fn room(&self) -> usize {
        let (columns, digits) = (columns(), self.config.train.steps.to_string().len());
        let counts = if columns < NARROW { "100%".len() } else { 2 * digits + "/  ETA ".len() };
        columns.saturating_sub(bar_width() + counts + "   12m".len())
    }
}

/// As many of the first parts as fit; a truncated number would be wrong.
fn fitting(parts: Vec<String>, mut room: usize) -> String {
    let fits = |part: &String| {
        let fits = part.len() <= room;
        room = room.saturating_sub(part.len());
        fits
    };
    parts.into_iter().take_while(fits).collect()
}

/// A sample under its heading.
fn sample_text(line: &SampleLine) -> String {
    let text = visible(&line.sample);
    let text = text.lines().map(|line| format!("\n  {line}")).collect::<String>();
    format!("sample after step {}:{text}", line.step)
}

/// A validation in one line.
fn validation_text(kind: ModelKind, line: &ValidationLine) -> String {
    let (step, nats, loss, bits) = (line.step, line.nats_per_sequence, line.cost.loss, line.cost.bits_per_byte);
    let kl = line.kl_per_sequence;
    let parts = || format!("NELBO {nats:.2} = NLL {:.2} + KL {}", nats - kl, digits(kl, 2));
    let cost = match kind {
        ModelKind::Oracle => format!("NLL given the facts {nats:.2}"),
        _ if kind.infers() => parts(),
        _ if kind.method().is_some() => format!("bound {nats:.2}"),
        _ => format!("NLL {nats:.2}"),
    };
    let exact =
        line.exact_nats_per_sequence.map(|exact| format!("; the source's exact cost is {exact:.2} nats/sequence"));
    let exact = exact.unwrap_or_default();
    format!("validation after step {step}: {cost} nats/sequence, {loss:.4} nats/token, {bits:.3} bits/byte{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_whole_or_not_at_all() {
        let parts = || ["loss 1.25", " nats", " 9 tokens/s"].map(String::from).to_vec();
        for (room, shown) in [(0, ""), (8, ""), (13, "loss 1.25"), (14, "loss 1.25 nats"), (24, "loss 1.25 nats")] {
            assert_eq!(fitting(parts(), room), shown);
        }
    }

    #[test]
    fn where_there_is_no_terminal_words_come_now_and_then() {
        let plain = Plain::new();
        plain.write_str("  12/64 sequences ").unwrap();
        plain.flush().unwrap();
        assert!(plain.state().0.is_empty(), "what came too early is not said later");
    }
}
