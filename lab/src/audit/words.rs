//! What the audit's numbers say, in sentences.

use super::{Audit, Row};
use crate::table::nats;
use ltm::config::Noise;
use ltm::evaluate::Mean;

/// A latent with less KL than this, in nats, tells the decoder next to nothing.
const IDLE: f64 = 0.1;

/// A paragraph for every question.
pub fn verdict(audit: &Audit<'_>) -> String {
    let parts = [bounds(audit), fixed(audit), perplexities(audit), steps(audit), latents(audit)];
    parts.map(|part| format!("- {part}")).join("\n")
}

/// The row with the least of a number, and that number.
fn least<'a>(rows: impl IntoIterator<Item = (&'a Row, Mean)>) -> Option<(&'a Row, Mean)> {
    rows.into_iter().min_by(|a, b| a.1.mean.total_cmp(&b.1.mean))
}

fn last<'a>(audit: &Audit<'a>) -> &'a Row {
    audit.rows.last().expect("an audit has rows")
}

/// Whether the numbers that are called bounds are.
fn bounds(audit: &Audit<'_>) -> String {
    let above = [("elbo", 0), ("iwae", 1)].map(|(name, which)| {
        let above = |row: &'_ Row| [&row.elbo, &row.iwae][which].above();
        (name, audit.rows.iter().filter_map(|row| Some((row, above(row)?))).collect::<Vec<_>>())
    });
    let broken: Vec<String> = above
        .iter()
        .flat_map(|(name, rows)| rows.iter().map(move |row| (name, row)))
        .filter(|(_, (_, above))| above.is_below_zero())
        .map(|(name, (row, above))| format!("{name} at T = {} ({})", row.steps, nats(*above)))
        .collect();
    if !broken.is_empty() {
        return format!(
            "A BOUND IS BROKEN: {} cost less than the truth by more than a standard error: these numbers are not valid, \
             please report this.",
            broken.join(", ")
        );
    }
    let nearest = above.map(|(name, rows)| {
        let (row, above) = least(rows)?;
        Some(format!("{name} is nearest at T = {}, {} nats above", row.steps, nats(above)))
    });
    match nearest {
        [Some(elbo), Some(iwae)] => format!(
            "elbo and iwae are valid bounds here: at no T is either below the exact cost of the stories. {elbo}; {iwae}."
        ),
        _ => "elbo and iwae are upper bounds on -log p of the text under this model, in expectation: they pay the KL and are \
              scored at noise that no posterior was fitted to. The exact cost of this text is not known, so nothing here can \
              test that; an audit on stories of the embedded corpus does."
            .into(),
    }
}

/// What fixed noise hides.
fn fixed(audit: &Audit<'_>) -> String {
    let (first, last) = (&audit.rows[0], last(audit));
    let mut growth = format!("{} nats at T = {}", nats(first.gap()), first.steps);
    if audit.rows.len() > 1 {
        growth.push_str(&format!(" and {} at T = {}", nats(last.gap()), last.steps));
    }
    // An error that is not a number says the same: a single sequence tells nothing of others.
    let hidden = if last.gap().mean > last.gap().error {
        format!(
            "fixed is not a bound: the posteriors that it reports cost more at noise that they were not fitted to, by {growth}. \
             Its number leaves that out."
        )
    } else {
        format!(
            "fixed is not a bound. These sequences are too few to tell what its posteriors cost more at noise that they were not \
             fitted to: {growth}."
        )
    };
    let Some((row, above)) = least(audit.rows.iter().filter_map(|row| Some((row, row.fixed.above()?)))) else {
        return hidden;
    };
    if above.is_below_zero() {
        let below = Mean { mean: -above.mean, ..above };
        format!(
            "{hidden} It shows: at T = {} it is {} nats below what the stories cost anybody who knows their source.",
            row.steps,
            nats(below)
        )
    } else {
        format!("{hidden} On these stories it stays above the truth all the same, which promises nothing.")
    }
}

/// The same in perplexities, which is how numbers are published.
fn perplexities(audit: &Audit<'_>) -> String {
    let at = |row: &Row| {
        let elbo = match audit.model.config.fast.noise {
            Noise::Fresh => format!(", and elbo, which fits for fresh noise, prints {:.3}", row.elbo.perplexity()),
            Noise::Fixed => String::new(),
        };
        format!(
            "at T = {} fixed prints {:.3}, its posteriors at fresh noise cost {:.3}{elbo}",
            row.steps,
            row.fixed.perplexity(),
            row.fixed_at_fresh_noise.perplexity()
        )
    };
    let (trained, last) = (audit.as_trained(), last(audit));
    let rows = if trained.steps == last.steps { at(last) } else { format!("{}; {}", at(trained), at(last)) };
    format!("As perplexities: {rows}.")
}

/// What more steps bring.
fn steps(audit: &Audit<'_>) -> String {
    let (first, last) = (&audit.rows[0], last(audit));
    let (best, _) = least(audit.rows.iter().map(|row| (row, row.elbo.nats()))).expect("an audit has rows");
    let beyond = if best.steps == last.steps {
        "more steps than these may bring more".to_string()
    } else {
        format!("at T = {} the bound is {} nats higher", last.steps, nats(last.elbo.less(&best.elbo)))
    };
    format!(
        "At fresh noise, NLL goes from {:.2} at T = {} to {:.2} at T = {}, and the KL from {:.2} to {:.2}. The elbo bound is \
         least at T = {}; {beyond}.",
        first.elbo.nll().mean,
        first.steps,
        last.elbo.nll().mean,
        last.steps,
        first.elbo.kl().mean,
        last.elbo.kl().mean,
        best.steps
    )
}

/// Which layers and latents carry the KL.
fn latents(audit: &Audit<'_>) -> String {
    let row = audit.as_trained();
    let kl = &row.kl_by_latent;
    let total: f64 = kl.iter().sum();
    let layers = (1..).zip(kl.chunks(audit.model.config.model.latents));
    let layers = layers.map(|(layer, kl)| format!("layer {layer} {:.0} %", 100.0 * kl.iter().sum::<f64>() / total));
    let idle = kl.iter().filter(|&&kl| kl < IDLE).count();
    format!(
        "Of {total:.2} nats of KL at T = {} go to {}; {idle} of {} latents carry less than {IDLE} nats{}.",
        row.steps,
        layers.collect::<Vec<_>>().join(", "),
        kl.len(),
        if total < IDLE { ": the decoder ignores its latents" } else { "" }
    )
}
