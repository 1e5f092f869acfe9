//! The audit as tables, and as JSON.

use super::{Row, Scores, as_trained, reference, verdict};
use crate::eval::{Head, Text};
use crate::ledger::{self, Book, Named};
use crate::table::{Table, digits, nats, short};
use ltm::config::ModelKind;
use ltm::evaluate::{Excess, Mean, SequenceScore, Total};
use ltm::run::{Loaded, Run};
use serde::Serialize;
use std::collections::BTreeMap;

type ScoresOf = fn(&Row) -> &Scores;
type MeanOf = fn(&Row) -> Mean;

/// Protocols for whole sequences, and whether they are bounds.
pub(super) const WHOLE: [(&str, ScoresOf, bool); 4] = [
    ("elbo", |row| &row.elbo, true),
    ("iwae", |row| &row.iwae, true),
    ("fixed", |row| &row.fixed, false),
    ("fixed_at_fresh_noise", |row| &row.fixed_at_fresh_noise, true),
];

/// The entries of the JSON output, in nats per sequence.
const MEANS: [(&str, MeanOf); 15] = [
    ("elbo", |row| row.elbo.nats()),
    ("iwae", |row| row.iwae.nats()),
    ("prefix", |row| row.prefix.nats()),
    ("fixed", |row| row.fixed.nats()),
    ("fixed_at_fresh_noise", |row| row.fixed_at_fresh_noise.nats()),
    ("nll", |row| row.elbo.nll()),
    ("kl", |row| row.elbo.kl()),
    ("fixed_nll_at_own_noise", |row| row.fixed.nll()),
    ("fixed_nll_at_fresh_noise", |row| row.fixed_at_fresh_noise.nll()),
    ("fixed_kl", |row| row.fixed.kl()),
    ("gap", Row::gap),
    ("reference", |row| row.reference.nats()),
    ("reference_nll", |row| row.reference.nll()),
    ("reference_kl", |row| row.reference.kl()),
    ("reference_minus_own", Row::reference_minus_own),
];

/// Tables with a row per T, in nats per sequence, each with its caption: the number of every protocol, its distance
/// from the exact cost if that is known, and its parts.
pub fn tables(rows: &[Row]) -> Vec<(&'static str, Table<'_, Row>)> {
    let table = || Table::of(rows).right("T", |row| row.steps);
    let printed = table()
        .right("elbo, a bound", |row| nats(row.elbo.nats()))
        .right("iwae, a bound", |row| nats(row.iwae.nats()))
        .right("prefix, second half", |row| nats(row.prefix.nats()))
        .right("fixed, NOT a bound", |row| nats(row.fixed.nats()))
        .right("fixed at fresh noise", |row| nats(row.fixed_at_fresh_noise.nats()))
        .right("gap", |row| nats(row.gap()));
    let mut tables = vec![("The numbers of all protocols", printed)];
    if rows.iter().all(|row| row.elbo.above().is_some()) {
        let above = WHOLE.into_iter().fold(table(), |table, (name, scores, is_bound)| {
            let above = move |row| scores(row).above().expect("the exact cost is known");
            let [right, wrong] = if is_bound { ["holds", "BROKEN"] } else { ["above", "BELOW: not a bound"] };
            table
                .right(name.replace('_', " "), move |row| nats(above(row)))
                .left("", move |row| if above(row).is_below_zero() { wrong } else { right })
        });
        tables.push(("The same minus the exact cost of these stories; a bound cannot be below zero", above));
    }
    let parts = table()
        .right("NLL, fresh noise", |row| nats(row.elbo.nll()))
        .right("+ KL", |row| nats(row.elbo.kl()))
        .right("fixed: NLL, own noise", |row| nats(row.fixed.nll()))
        .right("NLL, fresh noise", |row| nats(row.fixed_at_fresh_noise.nll()))
        .right("+ KL", |row| nats(row.fixed.kl()));
    tables.push((
        "How the NLL falls with T, and its KL: for a posterior at fresh noise, and for one at the noise that it was \
         fitted to",
        parts,
    ));
    let ways = table()
        .right("run's way, elbo", |row| nats(row.elbo.nats()))
        .right("reference's way, elbo", |row| nats(row.reference.nats()))
        .right("= NLL", |row| nats(row.reference.nll()))
        .right("+ KL", |row| nats(row.reference.kl()))
        .right("minus run's way", |row| nats(row.reference_minus_own()));
    tables.push((reference::CAPTION, ways));
    tables
}

/// The KL of every latent, one row per layer.
pub fn latents<'a>(layers: &'a [(usize, &'a [f64])]) -> Table<'a, (usize, &'a [f64])> {
    let mut table = Table::of(layers).right("layer", |(number, _)| number);
    for k in 0..layers[0].1.len() {
        table = table.right(format!("latent {}", k + 1), |(_, kl)| digits(kl[k], 3));
    }
    table.right("all", |(_, kl)| digits(kl.iter().sum(), 3))
}

/// The subject and the results of an audit.
pub struct Audit<'a> {
    /// The run.
    pub run: &'a Run,
    /// Its model.
    pub model: &'a Loaded,
    /// The text.
    pub text: &'a Text,
    /// Draws S.
    pub draws: usize,
    /// A row for every T; none for a model that infers no latents.
    pub rows: &'a [Row],
    /// The ledger of the run, then those of the runs that it is compared with.
    pub ledgers: &'a [Named<'a>],
}

impl Audit<'_> {
    /// The sequences' cost in the ledger.
    fn scores(&self) -> &[SequenceScore] {
        &self.ledgers[0].1.scores
    }

    /// The exact cost of the sequences in nats each, if it is known.
    fn exact(&self) -> Option<f64> {
        Excess::of(self.scores()).map(|excess| excess.exact)
    }

    /// All tables.
    pub fn text(&self) -> String {
        let (config, total) = (&self.model.config, Total::of(self.scores()));
        let exact = self.exact();
        let what = match exact {
            Some(_) => "stories of the embedded corpus".into(),
            None => format!("sequences of {}", self.text),
        };
        let mut lines = vec![format!(
            "{} after step {}, weights {}, seed {}: {} {what}, {} tokens",
            self.run.path.display(),
            self.model.step,
            short(&self.model.weights),
            config.train.seed,
            total.sequences,
            total.tokens,
        )];
        let given = if config.model.kind == ModelKind::Oracle { ", given their facts," } else { "" };
        lines.push(if config.model.kind.infers() {
            format!(
                "posterior {}, fitted with {} noise, trained with T = {}; S = {} draws; nats/sequence, ± one standard error \
                 over sequences",
                config.fast.posterior, config.fast.noise, config.fast.steps, self.draws,
            )
        } else {
            format!("infers no latents: its NLL{given} is exact; ± one standard error over sequences")
        });
        lines.extend(exact.map(|exact| format!("the exact cost of these stories{given} is {exact:.2}")));
        if !self.rows.is_empty() {
            lines.extend(tables(self.rows).iter().map(|(caption, table)| format!("\n{caption}\n\n{table}")));
            let row = as_trained(self.rows, config);
            let layers: Vec<_> = (1..).zip(row.kl_by_latent.chunks(config.model.latents)).collect();
            lines.push(format!("\nKL by layer and latent at T = {}, nats/sequence\n", row.steps));
            lines.push(latents(&layers).to_string());
        }
        lines.extend(ledger::tables(self.ledgers).iter().map(|(caption, table)| format!("\n{caption}\n\n{table}")));
        lines.join("\n")
    }

    /// What the numbers mean, as a list.
    pub fn in_words(&self) -> String {
        let verdict = (!self.rows.is_empty()).then(|| verdict(self.rows, &self.model.config));
        let memory =
            ledger::sentence(self.ledgers[0].1, self.ledgers.get(1).copied()).map(|sentence| format!("- {sentence}"));
        verdict.into_iter().chain(memory).collect::<Vec<_>>().join("\n")
    }

    /// The same for programs, from `command`.
    pub fn json<'a>(&'a self, command: &'a str) -> impl Serialize + 'a {
        let total = Total::of(self.scores());
        let holding = |above: Mean| Above { above, holds: !above.is_below_zero() };
        let row = |row: &'a Row| RowJson {
            fast_steps: row.steps,
            means: MEANS.map(|(name, mean)| (name, mean(row))).into(),
            above_truth: WHOLE.iter().map(|(name, scores, _)| Some((*name, holding(scores(row).above()?)))).collect(),
            kl_by_layer_and_latent: row.kl_by_latent.chunks(self.model.config.model.latents).collect(),
            perplexity_elbo: row.elbo.perplexity(),
            perplexity_fixed: row.fixed.perplexity(),
        };
        Json {
            head: Head::new(self.run, self.model, self.text),
            command,
            samples: self.draws,
            sequences: total.sequences,
            tokens: total.tokens,
            bytes: total.bytes,
            exact_nats_per_sequence: self.exact(),
            rows: self.rows.iter().map(row).collect(),
            verdict: self.in_words(),
            ledger: Book(self.ledgers).json(),
        }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    command: &'a str,
    samples: usize,
    sequences: u64,
    tokens: u64,
    bytes: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exact_nats_per_sequence: Option<f64>,
    rows: Vec<RowJson<'a>>,
    verdict: String,
    ledger: ledger::Json<'a>,
}

#[derive(Serialize)]
struct RowJson<'a> {
    fast_steps: usize,
    #[serde(flatten)]
    means: BTreeMap<&'static str, Mean>,
    #[serde(skip_serializing_if = "Option::is_none")]
    above_truth: Option<BTreeMap<&'static str, Above>>,
    kl_by_layer_and_latent: Vec<&'a [f64]>,
    perplexity_elbo: f64,
    perplexity_fixed: f64,
}

#[derive(Serialize)]
struct Above {
    #[serde(flatten)]
    above: Mean,
    holds: bool,
}
