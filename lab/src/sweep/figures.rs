use super::Outcome;
use crate::plot::{Axis, Look, Mark, Plot, Series, number};
use ltm::evaluate::Mean;

/// The names of the figures' files, without their ending.
pub const FIGURES: [&str; 3] = ["perplexity-steps", "perplexity-tokens", "perplexity-flops"];

/// Most values of an axis that are labelled themselves; with more, round values are.
const OWN_TICKS: usize = 8;

/// The paper's three curves, perplexity against fast steps, training tokens and training compute, from whatever has
/// finished; `None` stands for one without a point. Against steps and compute stands what the largest budget gave, against
/// tokens what the largest number of fast steps gave.
pub fn figures(outcomes: &[Outcome]) -> [Option<Plot>; 3] {
    let usable = |o: &&Outcome| o.text("status") == "finished" && o.number("perplexity").is_finite();
    let outcomes: Vec<&Outcome> = outcomes.iter().filter(usable).collect();
    let largest = |key: &str| outcomes.iter().map(|o| o.number(key)).fold(0.0, f64::max);
    let (budget, steps) = (largest("budget"), largest("fast_steps"));
    let at_budget: Vec<&Outcome> = outcomes.iter().copied().filter(|o| o.number("budget") == budget).collect();
    let at_steps = outcomes.iter().copied().filter(|o| is_baseline(o) || o.number("fast_steps") == steps).collect();
    let after = format!("after {} training tokens", number(budget));
    [
        (format!("Perplexity against fast steps, {after}"), "fast steps T", "fast_steps", at_budget.clone()),
        (format!("Perplexity against training tokens, T = {steps}"), "training tokens", "budget", at_steps),
        (
            format!("Perplexity against training compute, {after}"),
            "training FLOP per token, counted from the plan",
            "flops_per_token",
            at_budget,
        ),
    ]
    .map(|(title, axis, key, outcomes)| figure(title, axis, key, &outcomes))
}

fn is_baseline(outcome: &Outcome) -> bool {
    outcome.number("latents_total") == 0.0
}

fn figure(title: String, axis: &str, key: &str, outcomes: &[&Outcome]) -> Option<Plot> {
    let mut xs: Vec<f64> = outcomes.iter().map(|o| o.number(key)).filter(|&x| x > 0.0).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    // A baseline without fast steps is a level, a little longer than the other lines.
    let ends = [xs.first().unwrap_or(&1.0) / 1.1, xs.last().unwrap_or(&10.0) * 1.1];
    let level = |y: f64| ends.map(|x| [x, y]).to_vec();

    let mut groups: Vec<(&str, f64)> = Vec::new();
    for outcome in outcomes {
        let group = (outcome.text("size"), outcome.number("latents_total"));
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let of_group = |(i, &(size, latents)): (usize, &(&str, f64))| {
        let own = outcomes.iter().filter(|o| o.text("size") == size && o.number("latents_total") == latents);
        let own: Vec<&Outcome> = own.copied().collect();
        let at = |x: f64| merged(x, own.iter().copied().filter(|o| o.number(key) == x));
        let marks: Vec<Mark> = xs.iter().filter_map(|&x| at(x)).collect();
        let line = match at(0.0) {
            Some(mark) => level(mark.at[1]),
            None => marks.iter().map(|mark| mark.at).collect(),
        };
        let name = if latents == 0.0 { format!("{size}, AR, exact") } else { format!("{size}, N_z = {latents}") };
        Series { name, look: Look { colour: i, stroke: usize::from(latents == 0.0) }, line, marks }
    };
    let mut series: Vec<Series> = groups.iter().enumerate().map(of_group).collect();
    if series.is_empty() {
        return None;
    }
    // Whatever was scored, the source of the text costs the same.
    let least = outcomes.iter().map(|o| o.number("least_perplexity")).find(|x| x.is_finite());
    series.extend(least.map(|least| Series {
        name: "the least possible".into(),
        look: Look { colour: 6, stroke: 2 },
        line: level(least),
        marks: Vec::new(),
    }));
    let mut x = Axis::log(axis);
    if xs.len() <= OWN_TICKS && key != "flops_per_token" {
        x.ticks = xs;
    }
    let notes = ["points: elbo, an upper bound", "bars: standard error"].map(String::from).to_vec();
    Some(Plot { title, x, y: Axis::log("perplexity, at most"), series, notes })
}

/// The mark of all seeds at `x`: their geometric mean with its standard error, of a single seed that over sequences.
fn merged<'a>(x: f64, outcomes: impl Iterator<Item = &'a Outcome>) -> Option<Mark> {
    let outcomes: Vec<&Outcome> = outcomes.collect();
    if let [one] = outcomes[..] {
        return Some(Mark { error: one.number("perplexity_error"), ..Mark::new(x, one.number("perplexity")) });
    }
    let logs: Vec<f64> = outcomes.iter().map(|o| o.number("perplexity").ln()).collect();
    let Mean { mean, error } = Mean::of(&logs);
    (!logs.is_empty()).then(|| Mark { error: mean.exp() * error, ..Mark::new(x, mean.exp()) })
}
