use super::{Finished, Outcome};
use crate::plot::{Look, Mark, Plot, Series};
use crate::table::number;
use ltm::evaluate::Mean;

/// The names of the figures' files, without their ending.
pub const FIGURES: [&str; 3] = ["perplexity-steps", "perplexity-tokens", "perplexity-flops"];

/// Most values of an axis that are labelled themselves; with more, round values are.
const OWN_TICKS: usize = 8;

/// The paper's three curves, perplexity against fast steps, training tokens and training compute, from whatever has
/// finished; `None` stands for one without a point. Against steps and compute stands what the largest budget gave, against
/// tokens what the largest number of fast steps gave.
pub fn figures(outcomes: &[Outcome]) -> [Option<Plot>; 3] {
    let results: Vec<Dot<'_>> = outcomes.iter().filter_map(|o| Some((o, o.result()?))).collect();
    let budget = results.iter().map(|(o, _)| o.budget).max().unwrap_or(0);
    let steps = results.iter().map(|(o, _)| o.fast_steps).max().unwrap_or(0);
    let at_budget: Vec<Dot<'_>> = results.iter().copied().filter(|(o, _)| o.budget == budget).collect();
    let at_steps = results.iter().copied().filter(|(o, _)| o.latents_total == 0 || o.fast_steps == steps).collect();
    let after = format!("after {} training tokens", number(budget as f64));
    let compute: Of = |(_, result)| result.flops_per_token;
    [
        (
            format!("Perplexity against fast steps, {after}"),
            "fast steps T",
            (|(o, _)| o.fast_steps as f64) as Of,
            true,
            at_budget.clone(),
        ),
        (
            format!("Perplexity against training tokens, T = {steps}"),
            "training tokens",
            |(o, _)| o.budget as f64,
            true,
            at_steps,
        ),
        (
            format!("Perplexity against training compute, {after}"),
            "training FLOP per token, counted from the plan",
            compute,
            false,
            at_budget,
        ),
    ]
    .map(|(title, axis, of, labels, results)| figure(title, axis, of, labels, &results))
}

/// A point with its result.
type Dot<'a> = (&'a Outcome, &'a Finished);
/// Its place on the horizontal axis.
type Of = fn(Dot<'_>) -> f64;

fn figure(title: String, axis: &str, of: Of, own_ticks: bool, results: &[Dot<'_>]) -> Option<Plot> {
    let mut xs: Vec<f64> = results.iter().map(|&dot| of(dot)).filter(|&x| x > 0.0).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    // A baseline without fast steps is a level, a little longer than the other lines.
    let ends = [xs.first().unwrap_or(&1.0) / 1.1, xs.last().unwrap_or(&10.0) * 1.1];
    let level = |y: f64| ends.map(|x| [x, y]).to_vec();

    let mut groups: Vec<(&str, usize)> = Vec::new();
    for (outcome, _) in results {
        let group = (outcome.size.as_str(), outcome.latents_total);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let of_group = |(i, &(size, latents)): (usize, &(&str, usize))| {
        let own = results.iter().filter(|(o, _)| o.size == size && o.latents_total == latents);
        let own: Vec<Dot<'_>> = own.copied().collect();
        let at = |x: f64| merged(x, own.iter().copied().filter(|&dot| of(dot) == x));
        let marks: Vec<Mark> = xs.iter().filter_map(|&x| at(x)).collect();
        let line = match at(0.0) {
            Some(mark) => level(mark.at[1]),
            None => marks.iter().map(|mark| mark.at).collect(),
        };
        let name = if latents == 0 { format!("{size}, AR, exact") } else { format!("{size}, N_z = {latents}") };
        Series { name, look: Look { colour: i, stroke: usize::from(latents == 0) }, line, marks }
    };
    let mut series: Vec<Series> = groups.iter().enumerate().map(of_group).collect();
    if series.is_empty() {
        return None;
    }
    // Whatever was scored, the source of the text costs the same.
    let least = results.iter().find_map(|(_, result)| result.judgement.least_perplexity);
    series.extend(least.map(|least| Series {
        name: "the least possible".into(),
        look: Look { colour: 6, stroke: 2 },
        line: level(least),
        marks: Vec::new(),
    }));
    let ticks = if own_ticks && xs.len() <= OWN_TICKS { xs } else { Vec::new() };
    let axes = [axis, "perplexity, at most"].map(String::from);
    let notes = ["points: elbo, an upper bound", "bars: standard error"].map(String::from).to_vec();
    Some(Plot { title, axes, is_log: true, ticks, series, notes })
}

/// The mark of all seeds at `x`: their geometric mean with its standard error, of a single seed that over sequences.
fn merged<'a>(x: f64, results: impl Iterator<Item = Dot<'a>>) -> Option<Mark> {
    let all: Vec<_> = results.map(|(_, result)| &result.judgement).collect();
    if let [one] = all[..] {
        return Some(Mark { error: one.perplexity_error, ..Mark::new(x, one.perplexity) });
    }
    let logs: Vec<f64> = all.iter().map(|judgement| judgement.perplexity.ln()).collect();
    let Mean { mean, error } = Mean::of(&logs);
    (!logs.is_empty()).then(|| Mark { error: mean.exp() * error, ..Mark::new(x, mean.exp()) })
}
