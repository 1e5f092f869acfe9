use super::{Finished, Outcome};
use crate::eval::TRAINING_TEXT;
use crate::plot::{Look, Mark, Plot, Series};
use crate::table::number;
use ltm::evaluate::Mean;

/// Up to this many values of an axis are labelled themselves; with more, round values are.
const OWN_TICKS: usize = 8;

/// The paper's three curves: perplexity against fast steps, training tokens and training compute, from all finished
/// points, each with its file name without extension; none without a point. The curves against steps and compute use
/// the largest budget; the curve against tokens uses the largest number of fast steps.
pub fn figures(outcomes: &[Outcome]) -> Vec<(&'static str, Plot)> {
    let results: Vec<Dot<'_>> = outcomes.iter().filter_map(|o| Some((o, o.result.as_ref()?))).collect();
    let budget = results.iter().map(|(o, _)| o.budget).max().unwrap_or(0);
    let steps = results.iter().map(|(o, _)| o.fast_steps).max().unwrap_or(0);
    let at_budget: Vec<Dot<'_>> = results.iter().copied().filter(|(o, _)| o.budget == budget).collect();
    let at_steps = results.iter().copied().filter(|(o, _)| is_exact(o) || o.fast_steps == steps);
    let at_steps: Vec<Dot<'_>> = at_steps.collect();
    let after = format!("after {} training tokens", number(budget as f64));
    let [steps_title, tokens_title, flops_title] = [
        format!("Perplexity against fast steps, {after}"),
        format!("Perplexity against training tokens, T = {steps}"),
        format!("Perplexity against training compute, {after}"),
    ];
    let flops = "training FLOP per token, counted from the plan";
    let plots = [
        figure(steps_title, "fast steps T", OWN_TICKS, &at_budget, |(o, _)| o.fast_steps as f64),
        figure(tokens_title, "training tokens", OWN_TICKS, &at_steps, |(o, _)| o.budget as f64),
        figure(flops_title, flops, 0, &at_budget, |(_, result)| result.flops_per_token),
    ];
    let names = ["perplexity-steps", "perplexity-tokens", "perplexity-flops"];
    if results.is_empty() { Vec::new() } else { names.into_iter().zip(plots).collect() }
}

/// A point with its result.
type Dot<'a> = (&'a Outcome, &'a Finished);

/// The plot of `results` with `of` as the horizontal axis; up to `own_ticks` places are labelled themselves.
fn figure(title: String, axis: &str, own_ticks: usize, results: &[Dot<'_>], of: impl Fn(Dot<'_>) -> f64) -> Plot {
    let mut xs: Vec<f64> = results.iter().map(|&dot| of(dot)).filter(|&x| x > 0.0).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    // A baseline without fast steps is a horizontal line, slightly longer than the others.
    let ends = [xs.first().unwrap_or(&1.0) / 1.1, xs.last().unwrap_or(&10.0) * 1.1];
    let level = |y: f64| ends.map(|x| [x, y]).to_vec();

    let mut groups: Vec<Group<'_>> = Vec::new();
    for (outcome, _) in results {
        let group = group_of(outcome);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let of_group = |(i, &group): (usize, &Group<'_>)| {
        let own = || results.iter().filter(move |(o, _)| group_of(o) == group);
        let at = |x: f64| merged(x, own().filter(|&&dot| of(dot) == x).map(|(_, result)| *result));
        let marks: Vec<Mark> = xs.iter().filter_map(|&x| at(x)).collect();
        let line = match at(0.0) {
            Some(mark) => level(mark.at[1]),
            None => marks.iter().map(|mark| mark.at).collect(),
        };
        let name = match group {
            (size, latents, false) => format!("{size}, N_z = {latents}"),
            (size, 0, true) => format!("{size}, ar, exact"),
            (size, latents, true) => format!("{size}, ar-latent, N_z = {latents}, exact"),
        };
        // What is exact is dashed, and has the colour of the model with as many latents.
        let colour = groups.iter().position(|other| (other.0, other.1) == (group.0, group.1)).unwrap_or(i);
        let stroke = if group.2 { 1 } else { [0, 2, 3][i % 3] };
        // The error of a level line stands at its end.
        let end = at(0.0).map(|mark| Mark { at: [ends[1], mark.at[1]], ..mark });
        let marks = marks.into_iter().chain(end).collect();
        Series { name, look: Look { colour, stroke }, line, marks, ..Series::default() }
    };
    let mut series: Vec<Series> = groups.iter().enumerate().map(of_group).collect();
    // A reader without memory pays the more the less it sees, so sizes may differ.
    let mut floors: Vec<f64> = results.iter().filter_map(|(_, result)| result.floor_perplexity).collect();
    floors.sort_by(f64::total_cmp);
    floors.dedup();
    series.extend(floors.into_iter().map(|floor| Series {
        name: "best reader without memory".into(),
        look: Look { stroke: 2, ..Look::LAST },
        line: level(floor),
        ..Series::default()
    }));
    // The source's cost is the same for all points.
    let least = results.iter().find_map(|(_, result)| result.least_perplexity);
    series.extend(least.map(|least| Series {
        name: "true source".into(),
        look: Look::LAST,
        line: level(least),
        ..Series::default()
    }));
    let ticks = if xs.len() <= own_ticks { xs } else { Vec::new() };
    let axes = [axis, "perplexity (upper bound)"].map(String::from);
    let mut notes = ["points: elbo, an upper bound", "bars: standard error"].map(String::from).to_vec();
    if results.iter().any(|(_, result)| result.data_learnt) {
        notes.push(format!("scored on {TRAINING_TEXT}"));
    }
    Plot { title, axes, is_log: true, ticks, series, notes, ..Plot::default() }
}

/// What a series of a figure has in common: size, N_z, and whether it is exact.
type Group<'a> = (&'a str, usize, bool);

fn group_of(outcome: &Outcome) -> Group<'_> {
    (&outcome.size, outcome.latents_total, is_exact(outcome))
}

/// Whether the point is of a baseline, which takes no fast steps.
fn is_exact(outcome: &Outcome) -> bool {
    outcome.fast_steps == 0
}

/// The mark of all seeds at `x`: their geometric mean with its standard error; for a single seed, the error over
/// sequences.
fn merged<'a>(x: f64, seeds: impl Iterator<Item = &'a Finished>) -> Option<Mark> {
    let seeds: Vec<_> = seeds.collect();
    if let [one] = seeds[..] {
        return Some(Mark { error: one.perplexity_error, ..Mark::new(x, one.perplexity) });
    }
    let Mean { mean, error } = Mean::of(&seeds.iter().map(|seed| seed.perplexity.ln()).collect::<Vec<_>>());
    (!seeds.is_empty()).then(|| Mark { error: mean.exp() * error, ..Mark::new(x, mean.exp()) })
}
