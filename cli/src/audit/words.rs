//! What the audit's numbers say, in sentences.

use super::table::{as_trained, pm};
use super::{Subject, perplexity};
use lab::audit::{Audit, Row};
use ltm::config::Noise;
use ltm::evaluate::Mean;

/// A latent with less KL than this, in nats, tells the decoder next to nothing.
const IDLE: f64 = 0.1;

/// One sentence or two for every question.
pub fn verdict(subject: &Subject<'_>, audit: &Audit) -> String {
    let parts = [bounds(audit), fixed(audit), perplexities(subject, audit), steps(audit), latents(subject, audit)];
    parts.map(|part| format!("- {part}")).join("\n")
}

/// Whether the numbers that are called bounds are.
fn bounds(audit: &Audit) -> String {
    if audit.exact.is_empty() {
        return "elbo and iwae are upper bounds on -log p of the text under this model, in expectation, because they pay the KL and \
                are scored at noise that no posterior was fitted to. What the text costs at least is not known, so nothing here \
                can test that; `ltm audit` without --text does, on stories whose probability is known."
            .into();
    }
    let above = |of: fn(&Row) -> Vec<f64>| {
        let all = audit.rows.iter().map(move |row| (row.steps, Mean::of_differences(&of(row), &audit.exact)));
        all.collect::<Vec<_>>()
    };
    let checks = [("elbo", above(|row| row.fitted.bound())), ("iwae", above(|row| row.iwae.clone()))];
    let broken: Vec<String> = checks
        .iter()
        .flat_map(|(name, rows)| rows.iter().map(move |row| (name, row)))
        .filter(|(_, (_, above))| above.is_below_zero())
        .map(|(name, (t, above))| format!("{name} at T = {t} ({})", pm(*above)))
        .collect();
    if !broken.is_empty() {
        return format!(
            "A BOUND IS BROKEN: {} cost less than the truth by more than a standard error: these numbers are not valid, please \
             report this.",
            broken.join(", ")
        );
    }
    let least = |rows: &[(usize, Mean)]| {
        let (t, above) = rows.iter().min_by(|a, b| a.1.mean.total_cmp(&b.1.mean)).copied().expect("an audit has rows");
        format!("{} nats above the truth at T = {t}, where it is nearest", pm(above))
    };
    format!(
        "What this program reports as elbo and iwae are valid bounds here: at no T is either below the exact cost of the stories. elbo \
         stays {}; iwae {}.",
        least(&checks[0].1),
        least(&checks[1].1)
    )
}

/// What fixed noise hides.
fn fixed(audit: &Audit) -> String {
    let gap = |row: &Row| Mean::of_differences(&row.fixed.bound(), &row.fixed.reported());
    let (first, last) = (&audit.rows[0], audit.rows.last().expect("an audit has rows"));
    let growth = match audit.rows.len() {
        1 => format!("{} nats at T = {}", pm(gap(first)), first.steps),
        _ => format!("{} nats at T = {} and {} at T = {}", pm(gap(first)), first.steps, pm(gap(last)), last.steps),
    };
    let Mean { mean, error } = gap(last);
    let hidden = match mean > error {
        true => format!(
            "fixed is not a bound: the very posteriors that it reports cost more at noise that they were not fitted to, by {growth}; \
             that part is left out of its number."
        ),
        // An error that is not a number too: a single sequence says nothing of others.
        false => format!(
            "fixed is not a bound; what the very posteriors that it reports cost more at noise that they were not fitted to, these \
             sequences are too few to tell: {growth}."
        ),
    };
    let below: Vec<(usize, Mean)> = audit
        .rows
        .iter()
        .filter(|_| !audit.exact.is_empty())
        .map(|row| (row.steps, Mean::of_differences(&row.fixed.reported(), &audit.exact)))
        .filter(|(_, above)| above.is_below_zero())
        .collect();
    match below.iter().min_by(|a, b| a.1.mean.total_cmp(&b.1.mean)) {
        Some((t, above)) => format!(
            "{hidden} It shows: at T = {t} it is {:.2} ± {:.2} nats below what the stories cost anybody who knows their source.",
            -above.mean, above.error
        ),
        None if audit.exact.is_empty() => hidden,
        None => format!("{hidden} On these stories it stays above the truth all the same, which promises nothing."),
    }
}

/// The same in perplexities, which is how numbers are published, and what more steps make of them.
fn perplexities(subject: &Subject<'_>, audit: &Audit) -> String {
    let last = audit.rows.last().expect("an audit has rows");
    let of = |row: &Row| {
        let mean = |values: Vec<f64>| perplexity(audit, Mean::of(&values).mean);
        [mean(row.fixed.reported()), mean(row.fixed.bound()), mean(row.fitted.bound())]
    };
    let at = |row: &Row| {
        let [fixed, fresh, elbo] = of(row);
        let elbo = match subject.model.config.fast.noise {
            Noise::Fresh => format!(", and elbo, fitted for that, is {elbo:.3}"),
            Noise::Fixed => String::new(),
        };
        format!("at T = {} fixed prints {fixed:.3}, its posteriors at fresh noise cost {fresh:.3}{elbo}", row.steps)
    };
    let trained = as_trained(subject, audit);
    let rows = if trained.steps == last.steps { at(last) } else { format!("{}; {}", at(trained), at(last)) };
    format!("As perplexities: {rows}. A number that was made the first way does not tell the others.")
}

/// What more steps bring.
fn steps(audit: &Audit) -> String {
    let (first, last) = (&audit.rows[0], audit.rows.last().expect("an audit has rows"));
    let best = audit
        .rows
        .iter()
        .min_by(|a, b| Mean::of(&a.fitted.bound()).mean.total_cmp(&Mean::of(&b.fitted.bound()).mean))
        .expect("an audit has rows");
    let nll = |row: &Row| Mean::of(&row.fitted.nll).mean;
    let kl = |row: &Row| Mean::of(&row.fitted.kl).mean;
    let change = Mean::of_differences(&last.fitted.bound(), &best.fitted.bound());
    let beyond = if best.steps == last.steps {
        "more steps than these may bring more".to_string()
    } else {
        format!("at T = {} the bound is {} nats higher", last.steps, pm(change))
    };
    format!(
        "At noise that was not fitted to, NLL goes from {:.2} at T = {} to {:.2} at T = {}, and the KL from {:.2} to {:.2}. The elbo bound is \
         least at T = {}; {beyond}.",
        nll(first),
        first.steps,
        nll(last),
        last.steps,
        kl(first),
        kl(last),
        best.steps
    )
}

/// Who carries what.
fn latents(subject: &Subject<'_>, audit: &Audit) -> String {
    let row = as_trained(subject, audit);
    let kl = &row.fitted.kl_by_latent;
    let total: f64 = kl.iter().sum();
    let per_layer = subject.model.config.model.latents;
    let layers: Vec<String> = kl
        .chunks(per_layer)
        .enumerate()
        .map(|(l, kl)| format!("layer {} {:.0} %", l + 1, 100.0 * kl.iter().sum::<f64>() / total))
        .collect();
    let idle = kl.iter().filter(|&&kl| kl < IDLE).count();
    let says = if total < IDLE { ": the decoder ignores its latents" } else { "" };
    format!(
        "Of {total:.2} nats of KL at T = {} go to {}; {idle} of {} latents carry less than {IDLE} nats{says}.",
        row.steps,
        layers.join(", "),
        kl.len()
    )
}
