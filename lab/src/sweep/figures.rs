use super::Outcome;

/// One of the paper's curves: perplexity against something.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Short name, that of its file.
    pub name: &'static str,
    /// What it shows.
    pub title: String,
    /// What the horizontal axis is.
    pub axis: &'static str,
    /// One per size and number of latents, and per baseline.
    pub lines: Vec<Line>,
    /// Perplexity of the process that made the text, where it is known.
    pub least: Option<f64>,
}

/// Points of one size and number of latents, from left to right.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What they have in common.
    pub label: String,
    /// A model without latents: its perplexity is exact, where the others are bounds.
    pub exact: bool,
    /// The points.
    pub marks: Vec<Mark>,
}

/// One point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Fast steps, tokens, or FLOPs per token.
    pub x: f64,
    /// Perplexity: over several seeds, their geometric mean.
    pub y: f64,
    /// Standard error: over sequences for one seed, over seeds for several. May be not a number.
    pub error: f64,
}

/// The three figures from whatever has finished; those without a point are left out. Against steps and FLOPs stands what the
/// largest budget gave, against tokens what the largest number of fast steps gave.
pub fn figures(outcomes: &[Outcome]) -> Vec<Figure> {
    let usable = |o: &&Outcome| o.text("status") == "finished" && o.number("perplexity").is_finite();
    let outcomes: Vec<&Outcome> = outcomes.iter().filter(usable).collect();
    let largest = |key: &str| outcomes.iter().map(|o| o.number(key)).fold(0.0, f64::max);
    let (budget, steps) = (largest("budget"), largest("fast_steps"));
    let latent = |o: &Outcome| o.number("latents_total") > 0.0;
    let at_budget: Vec<&Outcome> = outcomes.iter().copied().filter(|o| o.number("budget") == budget).collect();
    let at_steps = |o: &&Outcome| !latent(o) || o.number("fast_steps") == steps;
    let at_steps: Vec<&Outcome> = outcomes.iter().copied().filter(at_steps).collect();
    let learnt = format!("after {} training tokens", si(budget));
    let all = [
        ("steps", format!("Perplexity against fast steps, {learnt}"), "fast steps T", "fast_steps", at_budget.clone()),
        ("tokens", format!("Perplexity against training tokens, T = {steps}"), "training tokens", "budget", at_steps),
        (
            "flops",
            format!("Perplexity against training compute, {learnt}"),
            "training FLOP per token, counted from the plan",
            "flops_per_token",
            at_budget,
        ),
    ];
    // Whatever was scored, its source's own cost is the same for all.
    let least = outcomes.iter().map(|o| o.number("least_perplexity")).find(|x| x.is_finite());
    let figures = all.into_iter().map(|(name, title, axis, key, outcomes)| Figure {
        name,
        title,
        axis,
        lines: lines(&outcomes, key),
        least,
    });
    figures.filter(|figure| !figure.lines.is_empty()).collect()
}

fn lines(outcomes: &[&Outcome], key: &str) -> Vec<Line> {
    let label = |o: &Outcome| match o.number("latents_total") {
        0.0 => format!("{}, AR, exact", o.text("size")),
        latents => format!("{}, N_z = {latents}", o.text("size")),
    };
    let mut labels: Vec<String> = Vec::new();
    for name in outcomes.iter().map(|o| label(o)) {
        if !labels.contains(&name) {
            labels.push(name);
        }
    }
    let line = |name: String| {
        let own: Vec<&Outcome> = outcomes.iter().copied().filter(|o| label(o) == name).collect();
        let mut xs: Vec<f64> = own.iter().map(|o| o.number(key)).filter(|x| x.is_finite()).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let mark = |x: f64| merged(x, own.iter().copied().filter(|o| o.number(key) == x).collect());
        Line {
            exact: own.iter().all(|o| o.number("latents_total") == 0.0),
            marks: xs.into_iter().map(mark).collect(),
            label: name,
        }
    };
    labels.into_iter().map(line).filter(|line| !line.marks.is_empty()).collect()
}

/// All seeds of one place.
fn merged(x: f64, outcomes: Vec<&Outcome>) -> Mark {
    if let [one] = outcomes[..] {
        return Mark { x, y: one.number("perplexity"), error: one.number("perplexity_error") };
    }
    let logs: Vec<f64> = outcomes.iter().map(|o| o.number("perplexity").ln()).collect();
    let mean = ltm::evaluate::Mean::of(&logs);
    Mark { x, y: mean.mean.exp(), error: mean.mean.exp() * mean.error }
}

/// `1.5 M`, for titles.
fn si(x: f64) -> String {
    let (scale, unit) = match x {
        1e9.. => (1e9, " G"),
        1e6.. => (1e6, " M"),
        1e3.. => (1e3, " k"),
        _ => (1.0, ""),
    };
    format!("{}{unit}", (x / scale * 100.0).round() / 100.0)
}
