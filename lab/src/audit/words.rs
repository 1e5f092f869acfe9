//! Describes the audit's numbers in sentences.

use super::layout::WHOLE;
use super::{Row, as_trained, reference};
use crate::table::{digits, nats};
use ltm::config::{Config, Noise};
use ltm::evaluate::Mean;
use ltm::run::ignored_kl;

/// One paragraph per question, for a run with `config`.
pub fn paragraphs(rows: &[Row], config: &Config) -> [String; 6] {
    [
        bounds(rows),
        fixed(rows),
        perplexities(rows, config),
        steps(rows),
        reference::paragraph(rows, config),
        latents(rows, config),
    ]
}

/// The same as a list.
pub fn verdict(rows: &[Row], config: &Config) -> String {
    paragraphs(rows, config).map(|part| format!("- {part}")).join("\n")
}

/// The first row and the last.
fn ends(rows: &[Row]) -> [&Row; 2] {
    [&rows[0], rows.last().expect("an audit has rows")]
}

/// The row with the least of a number, and that number; none if a row has none.
fn least(rows: &[Row], of: impl Fn(&Row) -> Option<Mean>) -> Option<(&Row, Mean)> {
    rows.iter().filter_map(|row| Some((row, of(row)?))).min_by(|a, b| a.1.mean.total_cmp(&b.1.mean))
}

/// Whether the bounds hold.
fn bounds(rows: &[Row]) -> String {
    let mut broken = Vec::new();
    let mut nearest = Vec::new();
    for (name, scores, _) in &WHOLE[..2] {
        for row in rows {
            let below = scores(row).above().filter(Mean::is_below_zero);
            broken.extend(below.map(|above| format!("{name} at T = {} ({})", row.steps, nats(above))));
        }
        let least = least(rows, |row| scores(row).above());
        nearest.extend(
            least.map(|(row, above)| format!("{name} is nearest at T = {}, {} nats above", row.steps, nats(above))),
        );
    }
    if !broken.is_empty() {
        format!(
            "A BOUND IS BROKEN: these are below the exact cost by more than a standard error: {}. They are not valid; \
             please report this.",
            broken.join(", ")
        )
    } else if nearest.is_empty() {
        "elbo and iwae are upper bounds on -log p of the text under this model, in expectation: they include the KL \
         and use noise that no posterior was fitted to. The exact cost of this text is not known, so this audit \
         cannot test the bounds; an audit on stories of the embedded corpus can."
            .into()
    } else {
        format!(
            "elbo and iwae are valid bounds here: neither is below the exact cost of the stories at any T. {}.",
            nearest.join("; ")
        )
    }
}

/// The effect of fixed noise.
fn fixed(rows: &[Row]) -> String {
    let gap = |row: &Row| {
        let gap = row.gap();
        let (than, size) = if gap.mean < 0.0 { ("less", Mean { mean: -gap.mean, ..gap }) } else { ("more", gap) };
        format!("{} nats {than} at T = {}", nats(size), row.steps)
    };
    let mut gaps = ends(rows).map(gap).to_vec();
    gaps.dedup();
    let gap = ends(rows)[1].gap();
    // The error is NaN for a single sequence, which also shows too little.
    let means = if gap.mean > gap.error { "fixed leaves this out." } else { "There are too few sequences to be sure." };
    let stories = match least(rows, |row| row.fixed.above()) {
        None => String::new(),
        Some((row, above)) if above.is_below_zero() => format!(
            " Here it is even invalid: at T = {} it is {} nats below the exact cost of the stories.",
            row.steps,
            nats(Mean { mean: -above.mean, ..above })
        ),
        Some(_) => " On these stories it stays above the exact cost, but nothing guarantees this.".into(),
    };
    format!("fixed is not a bound: at fresh noise its posteriors cost {}. {means}{stories}", gaps.join(" and "))
}

/// The same in perplexities, which is how numbers are published.
fn perplexities(rows: &[Row], config: &Config) -> String {
    let at = |row: &Row| {
        let elbo = match config.fast.noise {
            Noise::Fixed => String::new(),
            noise => format!(", and elbo, fitted with {noise} noise, is {:.3}", row.elbo.perplexity()),
        };
        format!(
            "at T = {} fixed is {:.3}, its posteriors at fresh noise give {:.3}{elbo}",
            row.steps,
            row.fixed.perplexity(),
            row.fixed_at_fresh_noise.perplexity()
        )
    };
    let (trained, last) = (as_trained(rows, config), ends(rows)[1]);
    let rows = if trained.steps == last.steps { at(last) } else { format!("{}; {}", at(trained), at(last)) };
    format!("As perplexities: {rows}.")
}

/// The effect of more steps.
fn steps(rows: &[Row]) -> String {
    let [first, last] = ends(rows);
    let (best, _) = least(rows, |row| Some(row.elbo.nats())).expect("an audit has rows");
    let beyond = if best.steps == last.steps {
        "more steps may improve it further".to_string()
    } else {
        format!("at T = {} the bound is {} nats higher", last.steps, nats(last.elbo.less(&best.elbo)))
    };
    format!(
        "At fresh noise, the NLL goes from {} at T = {} to {} at T = {}, and the KL from {} to {}. The elbo bound is \
         least at T = {}; {beyond}.",
        digits(first.elbo.nll().mean, 2),
        first.steps,
        digits(last.elbo.nll().mean, 2),
        last.steps,
        digits(first.elbo.kl().mean, 2),
        digits(last.elbo.kl().mean, 2),
        best.steps
    )
}

/// Which layers and latents carry the KL.
fn latents(rows: &[Row], config: &Config) -> String {
    let row = as_trained(rows, config);
    let kl = &row.kl_by_latent;
    let total: f64 = kl.iter().sum();
    let layers = (1..).zip(kl.chunks(config.model.latents));
    let layers = layers.map(|(layer, kl)| format!("{:.0} % in layer {layer}", 100.0 * kl.iter().sum::<f64>() / total));
    let ignored = ignored_kl(&config.model);
    let least = ignored / kl.len() as f64;
    let idle = kl.iter().filter(|&&kl| kl < least).count();
    format!(
        "The KL at T = {} is {} nats: {}; {idle} of {} latents carry less than {} nats, which noise alone may cost{}.",
        row.steps,
        digits(total, 2),
        layers.collect::<Vec<_>>().join(", "),
        kl.len(),
        digits(least, 2),
        if total < ignored { ": the decoder may ignore its latents" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::super::Scores;
    use super::*;
    use ltm::evaluate::SequenceScore;

    #[test]
    fn a_gap_has_a_direction() {
        let scores =
            |nats: f64| Scores([nats, nats + 1.0].map(|nats| SequenceScore { nats, ..Default::default() }).into());
        let row =
            |steps, fresh| Row { steps, fixed: scores(5.0), fixed_at_fresh_noise: scores(fresh), ..Row::default() };
        for (fresh, words) in [
            (
                [7.0, 6.5],
                "cost 2.00 ± 0.00 nats more at T = 1 and 1.50 ± 0.00 nats more at T = 2. fixed leaves this out.",
            ),
            ([5.5, 4.5], "0.50 ± 0.00 nats more at T = 1 and 0.50 ± 0.00 nats less at T = 2. There are too few"),
        ] {
            let said = fixed(&[row(1, fresh[0]), row(2, fresh[1])]);
            assert!(said.contains(words), "{said}");
        }
    }
}
