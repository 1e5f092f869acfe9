//! Training curves. A line is a mean over windows of steps, because losses of single batches are mostly noise. The
//! range of the vertical axis does not depend on the first steps.

use super::{Entry, Point};
use crate::plot::{self, Look, Mark, Plot, Series};
use crate::table::number;
use maud::{Markup, PreEscaped, html};
use std::collections::BTreeSet;

/// Most points of a line.
const MEANS: usize = 40;
/// Most points of the pale line behind it.
const SINGLE: usize = 400;
/// With more runs than this the pale lines would hide the others.
const WITH_SINGLE: usize = 3;

/// A run's name after its line sample and, among several runs, its number.
pub fn signed(run: usize, entries: &[Entry]) -> Markup {
    html! {
        (PreEscaped(plot::swatch(Look::of(run))))
        @if entries.len() > 1 { span.number { (run + 1) } " " }
        (entries[run].name)
    }
}

/// The position of a point of a run in a picture.
type Place<'a> = &'a dyn Fn(&Entry, &Point) -> [f64; 2];

fn chart(entries: &[Entry], title: &str, axes: [&str; 2], place: Place<'_>) -> Markup {
    let series = entries.iter().enumerate().map(|(run, entry)| {
        let line = |points: &[Point]| points.iter().map(|point| place(entry, point)).collect::<Vec<_>>();
        let (window, means) = entry.history.means(MEANS);
        let shows_single = window > 1 && entries.len() <= WITH_SINGLE;
        let ring = |[x, y]: [f64; 2]| Mark { hollow: true, ..Mark::new(x, y) };
        Series {
            name: entry.name.clone(),
            look: Look::of(run),
            line: line(&means),
            pale: if shows_single { line(&entry.history.means(SINGLE).1) } else { Vec::new() },
            label: if entries.len() > 1 { (run + 1).to_string() } else { String::new() },
            marks: line(&entry.history.validations).into_iter().map(ring).collect(),
        }
    });
    let series: Vec<Series> = series.collect();
    let plot = Plot { title: title.into(), axes: axes.map(String::from), top: top(&series), series, ..Plot::default() };
    html! {
        @if !plot.is_empty() {
            figure {
                figcaption {
                    (plot.title)
                    @if let Some(top) = plot.top { ": the axis ends at " (number(top)) ", and lines leave the picture" }
                }
                div role="img" aria-label=(plot.title) { (PreEscaped(plot.inline())) }
            }
        }
    }
}

/// The end of the vertical axis if the first fifth of the runs, or a few spikes, would take more than a third of it, unless all runs are short:
/// the maximum of the 95 % quantile of later points, the last mean and later marks. `None` if this is not needed.
fn top(series: &[Series]) -> Option<f64> {
    let finite = |points: &[[f64; 2]]| points.iter().map(|p| p[1]).filter(|y| y.is_finite()).collect::<Vec<_>>();
    let (mut top, mut all) = (f64::NEG_INFINITY, Vec::new());
    for Series { line, pale, marks, .. } in series {
        let shown = if pale.is_empty() { line } else { pale };
        let late = &shown[shown.len() / 5..];
        let mut values = finite(late);
        values.sort_by(f64::total_cmp);
        let most = values.get(values.len().saturating_sub(1) * 95 / 100);
        let begin = late.first().map_or(f64::NEG_INFINITY, |point| point[0]);
        let marks: Vec<[f64; 2]> = marks.iter().map(|mark| mark.at).collect();
        let late_marks: Vec<[f64; 2]> = marks.iter().copied().filter(|mark| mark[0] >= begin).collect();
        top = most.into_iter().chain(finite(line).last()).chain(&finite(&late_marks)).copied().fold(top, f64::max);
        all.extend([finite(shown), finite(&marks)].concat());
    }
    let (least, most) = all.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &y| (a.min(y), b.max(y)));
    let is_long = series.iter().any(|series| series.line.len() >= MEANS / 2);
    (is_long && most - least > 1.5 * (top - least)).then_some(top)
}

/// A unit of time for up to this many seconds, and its length.
fn unit_of_time(seconds: f64) -> (&'static str, f64) {
    match seconds {
        36e3.. => ("hours", 3600.0),
        600.0.. => ("minutes", 60.0),
        _ => ("seconds", 1.0),
    }
}

/// The last point of the smoothed line.
pub fn end(entry: &Entry) -> Option<Point> {
    entry.history.means(MEANS).1.last().copied()
}

/// The number of steps per mean, in words: `8 steps`, `8 to 12 steps`; `step` if no line is smoothed.
pub fn window(entries: &[Entry]) -> String {
    let windows: BTreeSet<usize> =
        entries.iter().filter(|e| e.history.steps.last().is_some()).map(|entry| entry.history.means(MEANS).0).collect();
    match (windows.first(), windows.last()) {
        (Some(1), Some(1)) | (None, _) | (_, None) => "step".into(),
        (Some(least), Some(most)) if least == most => format!("{most} steps"),
        (Some(least), Some(most)) => format!("{least} to {most} steps"),
    }
}

/// All pictures, with an explanation.
pub fn curves(entries: &[Entry]) -> Markup {
    let tokenizers: BTreeSet<String> =
        entries.iter().map(|entry| entry.run.config.data.tokenizer.to_string()).collect();
    let same_tokens = tokenizers.len() == 1;
    // Nats per token of different tokens cannot be compared.
    let loss = |point: &Point| if same_tokens { point.cost.loss } else { point.cost.bits_per_byte };
    let unit = if same_tokens { "nats per token" } else { "bits per byte" };
    // Without inferred latents there is no KL, not one of 0.
    let kl = |entry: &Entry, point: &Point| if entry.infers() { point.cost.kl } else { f64::NAN };
    let seconds = entries.iter().filter_map(|entry| entry.history.steps.last()).map(|last| last.seconds);
    let (time, length) = unit_of_time(seconds.fold(0.0, f64::max));
    let has_kl = entries.iter().any(Entry::infers);
    let has_single = entries.len() <= WITH_SINGLE && entries.iter().any(|entry| entry.history.means(MEANS).0 > 1);
    let has_fixed_noise = entries.iter().any(|entry| !entry.run.config.losses_are_bounds());
    let against_steps = |title: &str, unit: &str, of: &dyn Fn(&Entry, &Point) -> f64| {
        chart(entries, title, ["steps", unit], &|entry, point| [point.step, of(entry, point)])
    };
    html! {
        @if entries.iter().any(|entry| entry.history.steps.last().is_some()) {
            @if entries.len() > 1 { ul.legend { @for run in 0..entries.len() { li { (signed(run, entries)) } } } }
            p.note {
                @match &window(entries)[..] {
                    "step" => "A line shows every step. ",
                    window => { "A line is smoothed: a point is the mean of " (window) ". " },
                }
                @if has_single { "The pale line is smoothed less. " }
                "The loss is NLL plus KL, of masked diffusion an estimate of its bound. Rings show validation text: the bound "
                code { "elbo" } " of models that infer latents, " code { "bound" } " of masked diffusion, the exact "
                code { "nll" } " of others. "
                @if has_fixed_noise {
                    "With " code { "fast.noise = fixed" } " a line is not a bound, because it uses the noise that the posteriors were fitted to. "
                }
                @if !same_tokens { "The runs use different tokens, so only bits per byte can be compared. " }
                @if has_kl && !entries.iter().all(Entry::infers) { "Runs that infer no latents have no KL. " }
                "Time is that of training steps, on the machine of each run; the gradient's norm is that before clipping."
            }
            div.charts {
                (against_steps("Loss against steps", unit, &|_, point| loss(point)))
                (chart(entries, "Loss against tokens", ["training tokens", unit], &|_, point| [point.tokens, loss(point)]))
                (chart(entries, "Loss against time", [time, unit], &|_, point| [point.seconds / length, loss(point)]))
                @if has_kl {
                    (against_steps("NLL against steps", "nats per token", &|_, point| point.cost.nll))
                    (against_steps("KL against steps", "nats per token", &kl))
                }
                (against_steps("Learning rate against steps", "slow learning rate", &|_, point| point.rate))
                (against_steps("Gradient norm against steps", "global norm", &|_, point| point.grad_norm))
            }
        } @else {
            p.note { "No run has metrics of its training." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        Series { line: (0..).zip(values).map(|(x, &y)| [f64::from(x), y]).collect(), ..Series::default() }
    }

    #[test]
    fn the_axis_ends_where_the_later_part_of_a_run_does() {
        let falls: Vec<f64> = (0..40).map(|i| 3.0 + 3.0 * (-f64::from(i) / 2.0).exp()).collect();
        let mut spike = vec![1.0; 40];
        spike[20] = 100.0;
        let mut diverges = vec![1.0; 40];
        diverges[39] = 100.0;
        let even: Vec<f64> = (0..40).map(f64::from).collect();
        let mut hole = falls.clone();
        hole[30] = f64::NAN;
        for (values, expected) in [
            (&falls, Some(falls[10])),
            (&hole, Some(falls[10])),
            (&spike, Some(1.0)),
            (&diverges, None),
            (&even, None),
            (&vec![5.0], None),
            (&Vec::new(), None),
        ] {
            assert_eq!(top(&[series(values)]), expected, "{values:?}");
        }
        let marks = vec![Mark::new(0.0, 9.0), Mark::new(39.0, 4.0)];
        let marked = Series { marks, ..series(&falls) };
        assert_eq!(top(&[marked, series(&even[..3])]), Some(4.0), "a later mark counts, an early one does not");
    }

    #[test]
    fn time_has_a_readable_unit() {
        assert_eq!(
            [0.3, 599.0, 600.0, 35e3, 36e3].map(|t| unit_of_time(t).0),
            ["seconds", "seconds", "minutes", "minutes", "hours"]
        );
    }
}
