//! A run evaluated by several protocols on one text, for `ltm eval`.

use crate::table::{Table, digits, nats, or_dash, perplexity, plus_minus, short};
use crate::text;
use engine::{Error, Result};
use ltm::config::{ModelKind, Work};
use ltm::data::{DataFile, Source};
use ltm::evaluate::{Evaluator, Excess, Mean, Protocol, SequenceScore, Total};
use ltm::json::null_is_nan;
use ltm::run::{IMPORTED, Loaded, REPORT_SEED, Run, stories};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::sync::Arc;

/// Options of an evaluation.
#[derive(Debug)]
pub struct Options {
    /// The protocols, in the order of the table.
    pub protocols: Vec<Protocol>,
    /// Fast steps T.
    pub steps: usize,
    /// Draws S.
    pub samples: usize,
    /// Only the first sequences.
    pub limit: Option<u64>,
}

/// The origin of the numbers, for the head of a table.
pub fn origin(run: &Run, model: &Loaded, options: &Options) -> String {
    let (run, weights, config) = (run.path.display(), short(&model.weights), &model.config);
    let how = if config.model.kind.infers() {
        format!(", T = {} fast steps, S = {} draws", options.steps, options.samples)
    } else if config.model.kind.method().is_some() {
        format!(", S = {} draws of masks", options.samples)
    } else {
        String::new()
    };
    format!("{run} after step {}, weights {weights}, seed {}{how}", model.step, config.train.seed)
}

/// The result of one protocol, with the names of the `--json` output.
#[derive(Serialize)]
pub struct Row {
    /// Sums over the sequences.
    #[serde(flatten)]
    pub figures: Figures,
    /// The sums themselves.
    #[serde(skip)]
    pub total: Total,
    #[serde(skip)]
    is_bound: bool,
    nats_per_sequence: f64,
    nats_per_sequence_error: f64,
    nats_per_sequence_draw_error: f64,
    #[serde(flatten)]
    truth: Option<Truth>,
    /// What the model is told about a sequence costs, on average: the facts of an oracle's story.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts_nats_per_sequence: Option<f64>,
    /// The mean log Z of SEDD's scores at masked tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_log_z: Option<f64>,
    /// Nats of each sequence, in order: a comparison with another model, pair by pair, needs them.
    pub sequence_nats: Vec<f64>,
}

/// The exact cost, for stories of the embedded corpus.
#[derive(Serialize)]
struct Truth {
    exact_nats_per_sequence: f64,
    above_truth: f64,
    above_truth_error: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_holds: Option<bool>,
}

impl Row {
    /// The sum of `scores` by a protocol for a kind of model.
    pub fn of(protocol: Protocol, kind: ModelKind, scores: &[SequenceScore]) -> Self {
        let total = Total::of(scores);
        let nats = total.per_sequence();
        let is_bound = protocol.is_bound(kind);
        let truth = Excess::of(scores).map(|excess| Truth {
            exact_nats_per_sequence: excess.exact,
            above_truth: excess.above.mean,
            above_truth_error: excess.above.error,
            bound_holds: is_bound.then(|| !excess.above.is_below_zero()),
        });
        let told: f64 = scores.iter().map(|score| score.told).sum();
        let mut figures = Figures::of(protocol, kind, &total);
        if told > 0.0 {
            figures.status.push_str(GIVEN);
        }
        Self {
            figures,
            mean_log_z: None,
            facts_nats_per_sequence: (told > 0.0).then(|| told / total.sequences as f64),
            nats_per_sequence: nats.mean,
            nats_per_sequence_error: nats.error,
            nats_per_sequence_draw_error: total.draw_error() / total.sequences as f64,
            truth,
            total,
            is_bound,
            sequence_nats: scores.iter().map(|score| score.nats).collect(),
        }
    }

    /// Nats per sequence of a part of the sum, NLL or KL, if it has that part.
    pub fn per_sequence(&self, sum: Option<f64>) -> Option<f64> {
        sum.map(|sum| sum / self.figures.sequences as f64)
    }

    /// The exact cost of the same sequences in nats each, if that is known.
    pub fn exact(&self) -> Option<f64> {
        self.truth.as_ref().map(|truth| truth.exact_nats_per_sequence)
    }

    /// Nats per sequence above the exact cost of the same sequences, if that is known.
    pub fn above(&self) -> Option<Mean> {
        self.truth.as_ref().map(|truth| Mean { mean: truth.above_truth, error: truth.above_truth_error })
    }
}

/// Follows the kind of a number that is a cost given the facts of a story.
const GIVEN: &str = ", given the facts";

/// Scores `source` by all protocols; those that share their draws share a fit. Calls `progress` with the number of
/// sequences scored and that of all fits.
///
/// # Errors
/// Settings that contradict each other, data that do not fit the model, and scores that are not finite.
pub fn evaluate(
    model: &mut Loaded,
    source: &Arc<dyn Source>,
    options: &Options,
    mut progress: impl FnMut(u64, u64),
) -> Result<Vec<Row>> {
    let mut config = model.config.clone();
    config.fast.steps = options.steps;
    config.resolved()?;
    let count = source.samples().into_iter().chain(options.limit).min().unwrap_or(0);
    options.protocols.iter().try_for_each(|protocol| protocol.check(&config.model))?;
    let mut rows = Vec::new();
    let groups = Protocol::groups(&options.protocols);
    for (before, group) in groups.iter().enumerate() {
        let store = &mut model.store;
        let mut evaluator = Evaluator::new(&config, group[0], options.steps, options.samples, &model.params, store)?;
        evaluator.cut(config.data.chunking, model.lengths.as_ref());
        evaluator.ranks = model.ranks.clone();
        config.check_room(store, Work::Evaluation)?;
        let mut scores = vec![Vec::new(); group.len()];
        let mut log_z = Vec::new();
        evaluator.draws(store, source, 0..count, |sequences, done| {
            for draws in &sequences {
                log_z.extend(draws.log_z);
                for (scores, &protocol) in scores.iter_mut().zip(group) {
                    scores.push(draws.score(protocol)?);
                }
            }
            progress(before as u64 * count + done, groups.len() as u64 * count);
            Ok(())
        })?;
        let mean_log_z = (!log_z.is_empty()).then(|| Mean::of(&log_z).mean);
        let row =
            |(&protocol, scores): (_, Vec<_>)| Row { mean_log_z, ..Row::of(protocol, config.model.kind, &scores) };
        rows.extend(group.iter().zip(scores).map(row));
    }
    rows.sort_by_key(|row: &Row| options.protocols.iter().position(|&protocol| protocol == row.figures.protocol));
    Ok(rows)
}

/// A table of `row` for each protocol, with the distance from the exact cost if it is known.
pub fn columns<'a, R>(table: Table<'a, R>, row: impl Fn(&'a R) -> &'a Row + Copy) -> Table<'a, R> {
    let part = |row: &Row, sum| or_dash(row.per_sequence(sum).map(|nats| digits(nats, 2)));
    let table = table
        .left("protocol", |r| row(r).figures.protocol.name())
        .left("kind of number", |r| &row(r).figures.status)
        .right("nats/sequence", |r| nats(row(r).total.per_sequence()))
        .right("= NLL", |r| part(row(r), row(r).figures.nll))
        .right("+ KL", |r| part(row(r), row(r).figures.kl))
        .right("perplexity", |r| bounded(row(r).is_bound, perplexity(row(r).figures.perplexity)))
        .right("bits/byte", |r| digits(row(r).figures.bits_per_byte, 4));
    if table.rows.iter().all(|r| row(r).truth.is_none()) {
        return table;
    }
    table
        .right("exact cost", |r| or_dash(row(r).exact().map(|exact| digits(exact, 2))))
        .right("above it", |r| row(r).above().map_or("(half a story)".into(), nats))
}

/// The table, with notes on its numbers.
pub fn text(rows: &[Row]) -> String {
    let table = columns(Table::of(rows), |row| row);
    let exact = rows.iter().find_map(Row::exact);
    let mut lines = vec![table.to_string(), errors(rows)];
    if rows.iter().any(|row| row.figures.protocol == Protocol::Iwae) {
        lines.push(format!("{IWAE}; with few draws, noise can raise it above elbo"));
    }
    // The draws of other protocols say the same.
    if let Some((row, log_z)) = rows.iter().find_map(|row| Some((row, row.mean_log_z?))) {
        let name = row.figures.protocol.name();
        lines.push(format!("{name}: the mean log Z at masked tokens is {log_z:.4}; scores that sum to one have 0"));
    }
    if let Some(exact) = exact {
        lines.push(format!(
            "these stories have an exact mean -log p of {exact:.2} nats; the last column is the difference from it"
        ));
        for row in rows {
            if let Some(facts) = row.facts_nats_per_sequence {
                lines.push(format!(
                    "both are given the facts, whose values cost {facts:.2} nats: with them a story costs {:.2} nats under the model \
                     and {:.2} under the source",
                    row.nats_per_sequence + facts,
                    exact + facts
                ));
            }
        }
        lines.extend(rows.iter().filter_map(|row| row.above().map(|above| verdict(row.figures.protocol, above))));
    }
    lines.join("\n")
}

/// What the errors in the table are, and those of the draws.
fn errors(rows: &[Row]) -> String {
    let drawn = rows.iter().filter(|row| row.nats_per_sequence_draw_error > 0.0);
    let of_draws =
        |row: &Row| format!("{} by {}", digits(row.nats_per_sequence_draw_error, 2), row.figures.protocol.name());
    let of_draws: Vec<String> = drawn.map(of_draws).collect();
    let of_draws =
        if of_draws.is_empty() { String::new() } else { format!("; that of the draws is {}", of_draws.join(", ")) };
    format!("± is one standard error over sequences{of_draws}")
}

/// A perplexity as it stands in a table: "≤" precedes a bound's.
pub fn bounded(is_bound: bool, perplexity: String) -> String {
    if is_bound { format!("≤ {perplexity}") } else { perplexity }
}

/// A perplexity and its standard error, that of its logarithm being `error`.
pub fn with_error(value: f64, error: f64) -> String {
    format!("{} ± {}", perplexity(value), perplexity(value * error))
}

/// Why `iwae` has no NLL and no KL.
pub const IWAE: &str = "iwae has no NLL and KL of its own: it averages importance weights over all draws";

/// A sentence on whether a protocol's number behaves as it should, given its distance from the exact cost.
fn verdict(protocol: Protocol, above: Mean) -> String {
    let name = protocol.name();
    let side = if above.mean < 0.0 { "below" } else { "above" };
    let distance = format!("{} nats {side} the exact cost", plus_minus(above.mean.abs(), above.error, 2));
    match (protocol, above.is_below_zero()) {
        (Protocol::Fixed | Protocol::Paper, false) => {
            format!("{name}: not a bound; {distance} here, but nothing guarantees this")
        }
        (Protocol::Fixed | Protocol::Paper, true) => format!("{name}: not a bound: {distance}, which no bound can be"),
        (Protocol::Nll, false) => format!("{name}: exact, {distance}"),
        (Protocol::Nll, true) => format!("{name}: IMPOSSIBLE, {distance}: please report this"),
        (_, false) => format!("{name}: the bound holds, {distance}"),
        (_, true) => format!("{name}: THE BOUND IS BROKEN, {distance}: please report this"),
    }
}

/// A protocol's figures, for `--json` and the suite's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The protocol.
    pub protocol: Protocol,
    /// The kind of number.
    pub status: String,
    /// Sequences.
    pub sequences: u64,
    /// Targets scored.
    pub tokens: u64,
    /// Bytes of text that they stand for.
    pub bytes: f64,
    /// Σ nats.
    pub nats: f64,
    /// Σ NLL, if it is a [part](Protocol::parts) of the number.
    pub nll: Option<f64>,
    /// Σ KL, if it is a part of the number.
    pub kl: Option<f64>,
    /// exp(Σ nats / Σ tokens).
    #[serde(deserialize_with = "null_is_nan")]
    pub perplexity: f64,
    /// Bits per byte.
    #[serde(deserialize_with = "null_is_nan")]
    pub bits_per_byte: f64,
    /// Mean of exp(nats / tokens) over sequences, as in the public reference code.
    #[serde(deserialize_with = "null_is_nan")]
    pub mean_sequence_perplexity: f64,
}

impl Figures {
    /// Derives the figures from sums.
    pub fn of(protocol: Protocol, kind: ModelKind, total: &Total) -> Self {
        let [nll, kl] = protocol.parts();
        // The second half of a document pays for its length under masked diffusion.
        let kl = kl || protocol == Protocol::Prefix && total.kl > 0.0;
        Self {
            protocol,
            status: protocol.status(kind).into(),
            sequences: total.sequences,
            tokens: total.tokens,
            bytes: total.bytes,
            nats: total.nats,
            nll: nll.then_some(total.nll),
            kl: kl.then_some(total.kl),
            perplexity: total.perplexity(),
            bits_per_byte: total.bits_per_byte(),
            mean_sequence_perplexity: total.mean_perplexity(),
        }
    }
}

/// The model and the text of an evaluation, at the head of every `--json` output.
#[derive(Serialize)]
pub struct Head<'a> {
    run: String,
    step: u64,
    weights_sha256: &'a str,
    seed: u64,
    #[serde(flatten)]
    text: &'a Text,
}

impl<'a> Head<'a> {
    /// The model in `run`, evaluated on `text`.
    pub fn new(run: &Run, model: &'a Loaded, text: &'a Text) -> Self {
        let run = run.path.display().to_string();
        Self { run, step: model.step, weights_sha256: &model.weights, seed: model.config.train.seed, text }
    }
}

/// The scored text: its name and hash.
#[derive(Clone, Debug, Serialize)]
pub struct Text {
    /// The path as it was given, or a description.
    #[serde(rename = "data")]
    pub name: String,
    /// [SHA-256](DataFile::digest) of its files; `None` for the embedded corpus, which is part of the program.
    #[serde(rename = "data_sha256")]
    pub sha256: Option<String>,
    /// Whether it is training text of the run, see [`Run::was_trained_on_one_of`] and [`Material::seen`](ltm::run::Material::seen).
    #[serde(rename = "data_learnt")]
    pub is_training_text: bool,
    #[serde(skip)]
    files: Vec<DataFile>,
    /// The fingerprint of the data that it is the validation text of.
    #[serde(skip)]
    held_out_from: Option<String>,
}

/// Follows the name of a text that the run was trained on.
pub const TRAINING_TEXT: &str = "training text of the run, so not unseen";

impl Text {
    fn of(name: String, files: &[DataFile], is_training_text: bool) -> Self {
        let (sha256, files) = (Some(DataFile::digest(files)), files.to_vec());
        Self { name, sha256, is_training_text, files, held_out_from: None }
    }

    /// Whether it is training text of another run with this `model`.
    ///
    /// # Errors
    /// If the record of that run cannot be read.
    pub fn is_training_text_of(&self, run: &Run, model: &Loaded) -> Result<bool> {
        // The same data have the same validation text, which may be a part of a file.
        let same_data = self.held_out_from.as_ref() == Some(&model.data);
        if same_data { Ok(self.is_training_text) } else { run.was_trained_on_one_of(&self.files) }
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.sha256.as_ref().map_or(Ok(()), |digest| write!(f, " (sha256 {})", short(digest)))?;
        if self.is_training_text { write!(f, ", {TRAINING_TEXT}") } else { Ok(()) }
    }
}

/// The text for evaluating a run: the one at `path`, else the run's validation text, or this many stories of the embedded
/// corpus.
///
/// # Errors
/// If data cannot be read or have changed, or the run has no validation text.
pub fn chosen(run: &Run, model: &Loaded, path: Option<&Path>, count: u64) -> Result<(Arc<dyn Source>, Text)> {
    path.map_or_else(|| validation(run, model, count), |path| named(path, run))
}

/// All of the text at `path`.
fn named(path: &Path, run: &Run) -> Result<(Arc<dyn Source>, Text)> {
    let (source, files) = text::sequences(path, &run.config)?;
    let is_training_text = run.was_trained_on_one_of(&files)?;
    Ok((source, Text::of(path.display().to_string(), &files, is_training_text)))
}

/// The validation text of a run, or this many stories of the embedded corpus.
///
/// # Errors
/// If data cannot be read or have changed, or the run has no validation text.
pub fn validation(run: &Run, model: &Loaded, count: u64) -> Result<(Arc<dyn Source>, Text)> {
    let config = &run.config;
    if config.data.paths.is_empty() && model.data != IMPORTED {
        let name = "embedded corpus, stories for reports".into();
        let text = Text { name, sha256: None, is_training_text: false, files: Vec::new(), held_out_from: None };
        return Ok((stories(config, REPORT_SEED, count)?, text));
    }
    let path = run.path.display();
    if model.data == IMPORTED {
        return Err(Error::usage(format!("{path} was imported and has no validation text: name a text to score")));
    }
    let material = text::material(config)?;
    let same = run.check_data(&model.data, &material.data);
    same.map_err(|e| e.hint("validation text may be training text: restore the old data, or name unseen text"))?;
    let Some(source) = material.validation else {
        return Err(Error::usage(format!("{path} has no validation text: name a text to score")));
    };
    let files = material.validation_files;
    let names = files.iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>().join(" + ");
    let name = if config.data.validation.is_some() { names } else { format!("the validation text of {names}") };
    let held_out_from = Some(model.data.clone());
    Ok((source, Text { held_out_from, ..Text::of(name, &files, material.seen.is_some()) }))
}
