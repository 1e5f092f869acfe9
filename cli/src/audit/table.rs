//! The audit's tables.

use super::{Subject, perplexity};
use crate::output::{Align, short, table};
use lab::audit::{Audit, Row};
use ltm::evaluate::Mean;
use ltm::json::Value;

/// `12.34 ± 0.56`.
pub fn pm(mean: Mean) -> String {
    let error = if mean.error.is_finite() { format!("{:.2}", mean.error) } else { "–".into() };
    format!("{:.2} ± {error}", mean.mean)
}

/// What a number less the truth says of one that is called a bound, and of one that is not.
fn bound(above: Mean, is_bound: bool) -> &'static str {
    match (is_bound, above.is_below_zero()) {
        (true, false) => "holds",
        (true, true) => "BROKEN",
        (false, false) => "above",
        (false, true) => "BELOW: no bound",
    }
}

/// All tables.
pub fn text(subject: &Subject<'_>, audit: &Audit) -> String {
    use Align::{Left, Right};
    let Subject { run, model, draws, .. } = subject;
    let (config, sequences) = (&model.config, audit.rows[0].iwae.len());
    let what = match &subject.corpus {
        Some(_) => "held-out stories of the embedded corpus".into(),
        None => format!("sequences of {}", subject.text),
    };
    let mut lines = vec![format!(
        "{} after step {}, weights {}, seed {}: {sequences} {what}, {} tokens\nposterior {}, fitted with {} noise, trained with T = {}; S = {draws} draws; nats/sequence, ± one standard error over sequences",
        run.display(),
        model.step,
        short(&model.weights),
        config.train.seed,
        audit.tokens,
        config.fast.posterior,
        config.fast.noise,
        config.fast.steps,
    )];
    if let Some(corpus) = &subject.corpus {
        let exact = Mean::of(&audit.exact).mean;
        lines.push(format!("true entropy {:.2}; these very stories cost {exact:.2}", corpus.entropy()));
    }

    lines.push("\nWhat every protocol prints\n".into());
    let columns = [
        ("T", Right),
        ("elbo, a bound", Right),
        ("iwae, a bound", Right),
        ("prefix, second half", Right),
        ("fixed, NOT a bound", Right),
        ("the same at fresh noise", Right),
        ("gap", Right),
    ];
    let rows = audit.rows.iter().map(|row| {
        let (reported, fresh) = (row.fixed.reported(), row.fixed.bound());
        vec![
            row.steps.to_string(),
            pm(Mean::of(&row.fitted.bound())),
            pm(Mean::of(&row.iwae)),
            pm(Mean::of(&row.prefix)),
            pm(Mean::of(&reported)),
            pm(Mean::of(&fresh)),
            pm(Mean::of_differences(&fresh, &reported)),
        ]
    });
    lines.push(table(&columns, &rows.collect::<Vec<_>>()));

    if !audit.exact.is_empty() {
        lines.push("\nLess the exact cost of the same stories; a bound cannot be below zero\n".into());
        let columns = [
            ("T", Right),
            ("elbo", Right),
            ("", Left),
            ("iwae", Right),
            ("", Left),
            ("fixed", Right),
            ("", Left),
            ("the same at fresh noise", Right),
            ("", Left),
        ];
        let rows = audit.rows.iter().map(|row| {
            let mut cells = vec![row.steps.to_string()];
            for (numbers, is_bound) in [
                (row.fitted.bound(), true),
                (row.iwae.clone(), true),
                (row.fixed.reported(), false),
                (row.fixed.bound(), true),
            ] {
                let above = Mean::of_differences(&numbers, &audit.exact);
                cells.extend([pm(above), bound(above, is_bound).into()]);
            }
            cells
        });
        lines.push(table(&columns, &rows.collect::<Vec<_>>()));
    }

    lines.push("\nHow NLL falls with T and what it costs: a posterior at fresh noise, and one at the noise that it was fitted to\n".into());
    let columns = [
        ("T", Right),
        ("NLL, fresh noise", Right),
        ("+ KL", Right),
        ("fixed: NLL, own noise", Right),
        ("NLL, fresh noise", Right),
        ("+ KL", Right),
    ];
    let rows = audit.rows.iter().map(|row| {
        let (fitted, fixed) = (&row.fitted, &row.fixed);
        let parts = [&fitted.nll, &fitted.kl, &fixed.own_nll, &fixed.nll, &fixed.kl].map(|values| pm(Mean::of(values)));
        std::iter::once(row.steps.to_string()).chain(parts).collect()
    });
    lines.push(table(&columns, &rows.collect::<Vec<_>>()));

    let row = as_trained(subject, audit);
    lines.push(format!("\nWhere the KL goes at T = {}, nats/sequence by layer and latent\n", row.steps));
    let per_layer = config.model.latents;
    let names: Vec<String> = (1..=per_layer).map(|k| format!("latent {k}")).collect();
    let mut columns = vec![("layer", Right)];
    columns.extend(names.iter().map(|name| (name.as_str(), Right)));
    columns.push(("all", Right));
    let rows = row.fitted.kl_by_latent.chunks(per_layer).enumerate().map(|(layer, kl)| {
        let mut cells = vec![(layer + 1).to_string()];
        cells.extend(kl.iter().chain([&kl.iter().sum()]).map(|kl| format!("{kl:.3}")));
        cells
    });
    lines.push(table(&columns, &rows.collect::<Vec<_>>()));
    lines.join("\n")
}

/// The row of the T that is nearest to what the run was trained with.
pub fn as_trained<'a>(subject: &Subject<'_>, audit: &'a Audit) -> &'a Row {
    let trained = subject.model.config.fast.steps;
    audit.rows.iter().min_by_key(|row| row.steps.abs_diff(trained)).expect("an audit has rows")
}

fn mean(mean: Mean) -> Value {
    Value::object([("mean", mean.mean.into()), ("error", mean.error.into())])
}

/// The same for programs.
pub fn json(subject: &Subject<'_>, audit: &Audit) -> Value {
    let row = |row: &Row| {
        let (elbo, reported, fresh) = (row.fitted.bound(), row.fixed.reported(), row.fixed.bound());
        let numbers = [
            ("elbo", &elbo),
            ("iwae", &row.iwae),
            ("prefix", &row.prefix),
            ("fixed", &reported),
            ("fixed_at_fresh_noise", &fresh),
            ("nll", &row.fitted.nll),
            ("kl", &row.fitted.kl),
            ("fixed_nll_at_own_noise", &row.fixed.own_nll),
            ("fixed_nll_at_fresh_noise", &row.fixed.nll),
            ("fixed_kl", &row.fixed.kl),
        ];
        let mut entries = vec![("fast_steps", row.steps.into())];
        entries.extend(numbers.map(|(name, values)| (name, mean(Mean::of(values)))));
        entries.push(("gap", mean(Mean::of_differences(&fresh, &reported))));
        if !audit.exact.is_empty() {
            let above = [("elbo", &elbo), ("iwae", &row.iwae), ("fixed", &reported), ("fixed_at_fresh_noise", &fresh)]
                .map(|(name, values)| {
                    let above = Mean::of_differences(values, &audit.exact);
                    let entries = [
                        ("mean", above.mean.into()),
                        ("error", above.error.into()),
                        ("holds", (!above.is_below_zero()).into()),
                    ];
                    (name, Value::object(entries))
                });
            entries.push(("above_truth", Value::object(above)));
        }
        let per_layer = subject.model.config.model.latents;
        let kl = row.fitted.kl_by_latent.chunks(per_layer).map(|layer| layer.to_vec().into());
        entries.push(("kl_by_layer_and_latent", Value::Array(kl.collect())));
        entries.push(("perplexity_elbo", perplexity(audit, Mean::of(&elbo).mean).into()));
        entries.push(("perplexity_fixed", perplexity(audit, Mean::of(&reported).mean).into()));
        Value::object(entries)
    };
    let model = subject.model;
    let mut entries = vec![
        ("run", subject.run.display().to_string().into()),
        ("step", model.step.into()),
        ("weights_sha256", model.weights.as_str().into()),
        ("seed", model.config.train.seed.into()),
        ("command", crate::output::command().into()),
        ("samples", subject.draws.into()),
        ("sequences", audit.rows[0].iwae.len().into()),
        ("tokens", audit.tokens.into()),
        ("bytes", audit.bytes.into()),
    ];
    entries.extend(subject.text.entries());
    if let Some(corpus) = &subject.corpus {
        entries.push(("entropy", corpus.entropy().into()));
        entries.push(("exact_nats_per_sequence", Mean::of(&audit.exact).mean.into()));
    }
    entries.push(("rows", Value::Array(audit.rows.iter().map(row).collect())));
    entries.push(("verdict", super::words::verdict(subject, audit).into()));
    Value::object(entries)
}
