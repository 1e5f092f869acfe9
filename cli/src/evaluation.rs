//! Scoring sequences by several protocols, and the table of it.

use super::output::{Align, digits, note, perplexity, short, table};
use super::progress::bar;
use engine::Result;
use ltm::config::{Config, Work};
use ltm::corpus::Corpus;
use ltm::data::Source;
use ltm::evaluate::{Evaluator, Protocol, Total};
use ltm::hash::sha256_files;
use ltm::json::Value;
use ltm::run::{Excess, Loaded, Run, TrainingText, score_by};
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to score.
pub struct Options {
    /// By these, in this order.
    pub protocols: Vec<Protocol>,
    /// Fast steps T.
    pub steps: usize,
    /// Draws S.
    pub samples: usize,
    /// Only the first sequences.
    pub limit: Option<u64>,
}

/// What one protocol says.
pub struct Row {
    pub protocol: Protocol,
    pub total: Total,
    /// Nats of each sequence, in order: what a comparison with another model, pair by pair, needs.
    pub nats: Vec<f64>,
    /// Against the process that made the sequences; only for protocols that score whole sequences.
    pub excess: Option<Excess>,
}

/// Scores `source`.
///
/// # Errors
/// Settings that cannot be, data that do not fit, numbers that are not finite.
pub fn evaluate(model: &mut Loaded, source: &Arc<dyn Source>, options: &Options) -> Result<Vec<Row>> {
    let mut config = model.config.clone();
    config.fast.steps = options.steps;
    config.resolved()?;
    let mut rows: Vec<Row> = Vec::new();
    for &protocol in &options.protocols {
        if rows.iter().all(|row| row.protocol != protocol) {
            let protocols: Vec<_> = options.protocols.iter().copied().filter(|p| p.shares_draws(protocol)).collect();
            rows.extend(self::rows(model, &config, source, &protocols, options)?);
        }
    }
    let place = |row: &Row| options.protocols.iter().position(|&protocol| protocol == row.protocol);
    rows.sort_by_key(place);
    Ok(rows)
}

/// Scores by protocols that share their draws.
fn rows(
    model: &mut Loaded,
    config: &Config,
    source: &Arc<dyn Source>,
    protocols: &[Protocol],
    options: &Options,
) -> Result<Vec<Row>> {
    let store = &mut model.store;
    let evaluator = Evaluator::new(config, protocols[0], options.steps, options.samples, &model.params, store)?;
    config.check_room(store, Work::Evaluation)?;
    let count = source.samples().into_iter().chain(options.limit).min().unwrap_or(0);
    let bar = bar(count, "{bar:24} {pos}/{len} sequences  {msg}  ETA {eta}");
    bar.set_message(protocols.iter().map(|protocol| protocol.name()).collect::<Vec<_>>().join(", "));
    let progress = |done| bar.set_position(done);
    let scored = score_by(protocols, &evaluator, config, store, source, options.limit, progress)?;
    bar.finish_and_clear();
    let rows = protocols.iter().zip(scored).map(|(&protocol, scored)| {
        // The process is known for whole sequences only.
        let excess = scored.excess().filter(|_| protocol != Protocol::Prefix);
        let nats = scored.scores.iter().map(|score| score.nats).collect();
        Row { protocol, total: scored.total(), nats, excess }
    });
    Ok(rows.collect())
}

/// Standard error of a sum over sequences, as one of a mean.
fn mean_error(total: &Total) -> f64 {
    total.sequence_error / total.sequences as f64
}

/// The table of all protocols, for people. With `corpus`, the true entropy stands beside every one of them.
pub fn text(rows: &[Row], corpus: Option<&Corpus>) -> String {
    use Align::{Left, Right};
    let mut columns = vec![
        ("protocol", Left),
        ("what it is", Left),
        ("nats/sequence", Right),
        ("= NLL", Right),
        ("+ KL", Right),
        ("perplexity", Right),
        ("bits/byte", Right),
    ];
    if corpus.is_some() {
        columns.extend([("true entropy", Right), ("above the truth", Right)]);
    }
    let cells = rows.iter().map(|row| {
        let (total, n) = (&row.total, row.total.sequences as f64);
        let mut cells = vec![
            row.protocol.name().to_string(),
            row.protocol.status().to_string(),
            format!("{} ± {}", digits(total.nats / n, 2), digits(mean_error(total), 2)),
            digits(total.nll / n, 2),
            digits(total.kl / n, 2),
            perplexity(total.perplexity()),
            digits(total.bits_per_byte(), 4),
        ];
        if let Some(corpus) = corpus {
            cells.extend(match row.excess {
                Some(e) => [digits(corpus.entropy(), 2), format!("{} ± {}", digits(e.mean, 2), digits(e.error, 2))],
                None => ["–".into(), "(half a story)".into()],
            });
        }
        cells
    });
    let mut lines = vec![table(&columns, &cells.collect::<Vec<_>>())];
    let extras = rows.iter().map(|row| {
        let bound = if row.protocol == Protocol::Fixed { " (not a bound)" } else { "" };
        format!("{} {}{bound}", row.protocol.name(), perplexity(row.total.mean_perplexity))
    });
    let extras = extras.collect::<Vec<_>>().join(", ");
    lines.push(format!("extra, the public reference's average of exp(nats/token) over sequences: {extras}"));
    if rows.iter().any(|row| row.protocol == Protocol::Iwae) {
        lines.push("iwae is no sum of two parts: its KL column is what is left beside the draws' mean NLL; with few draws their noise can put it above elbo".into());
    }
    if let Some(exact) = rows.iter().find_map(|row| row.excess).map(|excess| excess.exact) {
        lines.push(format!(
            "exact -log p of these very stories: {exact:.2} nats each; the table's last column is measured against it"
        ));
        lines.extend(rows.iter().filter_map(|row| row.excess.map(|excess| verdict(row.protocol, excess))));
    }
    lines.join("\n")
}

/// Whether a number may be called what it is called, in a sentence.
fn verdict(protocol: Protocol, excess: Excess) -> String {
    let name = protocol.name();
    let Excess { mean, error, .. } = excess;
    let distance =
        format!("{:.2} ± {} nats {}", mean.abs(), digits(error, 2), if mean < 0.0 { "below" } else { "above" });
    match (protocol, excess.holds()) {
        (Protocol::Fixed, true) => format!("{name}: not a bound; {distance} the truth here, which promises nothing"),
        (Protocol::Fixed, false) => format!("{name}: not a bound, and it shows: {distance} the truth"),
        (Protocol::Nll, true) => format!("{name}: exact, {distance} the truth"),
        (Protocol::Nll, false) => format!("{name}: IMPOSSIBLE, {distance} the truth: please report this"),
        (_, true) => format!("{name}: the bound holds, {distance} the truth"),
        (_, false) => format!("{name}: THE BOUND IS BROKEN, {distance} the truth: please report this"),
    }
}

/// The same for programs.
pub fn json(rows: &[Row], corpus: Option<&Corpus>) -> Value {
    let row = |row: &Row| {
        let (total, n) = (&row.total, row.total.sequences as f64);
        let mut entries = vec![
            ("protocol", row.protocol.name().into()),
            ("status", row.protocol.status().into()),
            ("sequences", total.sequences.into()),
            ("tokens", total.tokens.into()),
            ("bytes", total.bytes.into()),
            ("nats", total.nats.into()),
            ("nll", total.nll.into()),
            // The mean importance weight is no sum of two parts: this is what is left beside the draws' mean NLL.
            (if row.protocol == Protocol::Iwae { "rest" } else { "kl" }, total.kl.into()),
            ("nats_per_sequence", (total.nats / n).into()),
            ("nats_per_sequence_error", mean_error(total).into()),
            ("nats_per_sequence_draw_error", (total.draw_error / n).into()),
            ("perplexity", total.perplexity().into()),
            ("bits_per_byte", total.bits_per_byte().into()),
            ("mean_sequence_perplexity", total.mean_perplexity.into()),
        ];
        if let (Some(corpus), Some(excess)) = (corpus, row.excess) {
            entries.push(("entropy", corpus.entropy().into()));
            entries.push(("exact_nats_per_sequence", excess.exact.into()));
            entries.push(("above_truth", excess.mean.into()));
            entries.push(("above_truth_error", excess.error.into()));
            if matches!(row.protocol, Protocol::Elbo | Protocol::Iwae) {
                entries.push(("bound_holds", excess.holds().into()));
            }
        }
        entries.push(("sequence_nats", row.nats.clone().into()));
        Value::object(entries)
    };
    Value::Array(rows.iter().map(row).collect())
}

/// Tells about checkpoints that could not be used.
pub fn warn(model: &Loaded) {
    model.warnings.iter().for_each(|warning| note(format_args!("warning: {warning}")));
}

/// The text that was scored: what it is called, and what vouches for it.
#[derive(Clone)]
pub struct Subject {
    /// The path as it was given, or in words.
    pub name: String,
    /// SHA-256 of its files' bytes, one behind the other; `None` for the embedded corpus, which is a part of the program.
    pub sha256: Option<String>,
    /// Whether it has a file that the model has learnt from, see [`TrainingText`].
    pub learnt: bool,
}

/// What stands behind the name of a text that a model has learnt from.
pub const LEARNT: &str = "which the run has learnt from: not unseen text";

/// Says so at once.
pub fn note_learnt(run: &Run, name: impl Display) {
    note(format_args!("note: {} has learnt from {name}: these numbers are not of unseen text", run.path().display()));
}

impl Subject {
    /// What a run held out of these files. Text that was given to hold out may have been given to learn from too.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn held_out(files: &[PathBuf], run: &Run) -> Result<Self> {
        let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        match run.config().data.validation.is_some() {
            true => Self::given(names.join(" + "), files, run),
            false => {
                let name = format!("what was held out of {}", names.join(" + "));
                Ok(Self { name, sha256: Some(sha256_files(files)?), learnt: false })
            }
        }
    }

    /// A text that somebody named, which lies in `files`. If the run has learnt from it, that is noted.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn named(path: &Path, files: &[PathBuf], run: &Run) -> Result<Self> {
        Self::given(path.display().to_string(), files, run)
    }

    fn given(name: String, files: &[PathBuf], run: &Run) -> Result<Self> {
        let learnt = TrainingText::of(run)?.has(files)?;
        if learnt {
            note_learnt(run, &name);
        }
        Ok(Self { name, sha256: Some(sha256_files(files)?), learnt })
    }

    /// Held-out stories.
    pub fn embedded() -> Self {
        Self { name: "embedded corpus, held out".into(), sha256: None, learnt: false }
    }

    /// For programs.
    pub fn entries(&self) -> [(&'static str, Value); 3] {
        let sha256 = self.sha256.as_deref().map_or(Value::Null, Into::into);
        [("data", self.name.as_str().into()), ("data_sha256", sha256), ("data_learnt", self.learnt.into())]
    }
}

impl Display for Subject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.sha256.as_ref().map_or(Ok(()), |digest| write!(f, " (sha256 {})", short(digest)))?;
        if self.learnt { write!(f, ", {LEARNT}") } else { Ok(()) }
    }
}
