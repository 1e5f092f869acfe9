use super::{Point, Sweep};
use engine::{Error, Result};
use ltm::config::{Config, parameter_count};
use ltm::evaluate::{Excess, Protocol, SequenceScore, Total};
use ltm::hash::sha256;
use ltm::json::{self, Value};
use ltm::run::SOURCES;
use std::collections::HashMap;
use std::path::Path;

/// What a configuration costs, counted from the plans of its training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Training FLOPs per token position.
    pub flops_per_token: f64,
    /// Bytes of everything that training holds.
    pub bytes: f64,
}

/// What training left behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trained {
    /// Targets learnt from: tokens without padding.
    pub targets: u64,
    /// Time in training steps, over all sessions.
    pub seconds: f64,
    /// SHA-256 of the file of weights.
    pub weights: String,
}

/// What a point's held-out sequences cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// `elbo`, or `nll` without latents.
    pub protocol: Protocol,
    /// exp(Σ nats / Σ tokens).
    pub perplexity: f64,
    /// Its standard error over the choice of sequences; not a number for a single one.
    pub perplexity_error: f64,
    /// The perplexity of the process that made the sequences, the least possible, where it is known.
    pub least: Option<f64>,
    /// Whether a bound behaves as one, where the truth is known.
    pub holds: Option<bool>,
    /// Sequences and their targets.
    pub sequences: usize,
    /// Targets scored.
    pub tokens: usize,
    /// Σ NLL in nats.
    pub nll: f64,
    /// Σ KL in nats.
    pub kl: f64,
    /// Bits per byte.
    pub bits_per_byte: f64,
    /// How long it took.
    pub seconds: f64,
}

impl Judgement {
    /// What scores say that took `seconds`.
    pub fn of(protocol: Protocol, scores: &[SequenceScore], seconds: f64) -> Self {
        let total = Total::of(scores);
        let excess = Excess::of(scores);
        Self {
            protocol,
            perplexity: total.perplexity(),
            perplexity_error: total.perplexity() * total.per_token().error,
            least: excess.map(|excess| (excess.exact * total.sequences as f64 / total.tokens as f64).exp()),
            holds: excess.map(|excess| excess.holds()),
            sequences: total.sequences as usize,
            tokens: total.tokens as usize,
            nll: total.nll,
            kl: total.kl,
            bits_per_byte: total.bits_per_byte(),
            seconds,
        }
    }
}

/// What became of a point, as its line in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Everything about it, an object.
    pub line: Value,
}

impl Outcome {
    /// A finished point, by whatever `command` made it.
    ///
    /// # Errors
    /// None that a point can cause.
    pub fn finished(
        key: &str,
        point: &Point,
        command: &str,
        cost: Cost,
        trained: &Trained,
        judged: &Judgement,
    ) -> Result<Self> {
        let mut entries = about(key, point, command, "finished")?;
        let sequences = judged.sequences as f64;
        entries.extend([
            ("step", point.asked.train.steps.into()),
            ("tokens", point.tokens().into()),
            ("targets", trained.targets.into()),
            ("flops_per_token", cost.flops_per_token.into()),
            ("flops", (cost.flops_per_token * point.tokens() as f64).into()),
            ("train_seconds", trained.seconds.into()),
            ("weights_sha256", trained.weights.as_str().into()),
            ("protocol", judged.protocol.name().into()),
            ("protocol_status", judged.protocol.status().into()),
            ("sequences", judged.sequences.into()),
            ("sequence_tokens", judged.tokens.into()),
            ("perplexity", judged.perplexity.into()),
            ("perplexity_error", judged.perplexity_error.into()),
            ("bits_per_byte", judged.bits_per_byte.into()),
            ("nll_per_sequence", (judged.nll / sequences).into()),
            ("kl_per_sequence", (judged.kl / sequences).into()),
            ("least_perplexity", judged.least.map_or(Value::Null, Value::from)),
            ("holds", judged.holds.map_or(Value::Null, Value::from)),
            ("eval_seconds", judged.seconds.into()),
        ]);
        Ok(Self { line: Value::object(entries) })
    }

    /// A point that could not be trained or judged.
    ///
    /// # Errors
    /// None that a point can cause.
    pub fn failed(point: &Point, command: &str, reason: &Error) -> Result<Self> {
        let mut entries = about("", point, command, "failed")?;
        // A line of the file has a step and tokens, like one of any other record here.
        entries.extend([("step", 0u64.into()), ("tokens", 0u64.into()), ("reason", reason.to_string().into())]);
        Ok(Self { line: Value::object(entries) })
    }

    /// Why there is no result, if there is none.
    pub fn reason(&self) -> Option<&str> {
        self.line.read("reason", Value::as_str).ok()
    }

    /// A number of the line; not a number where it has none.
    pub fn number(&self, key: &str) -> f64 {
        self.line.read(key, Value::as_f64).unwrap_or(f64::NAN)
    }

    /// Text of the line; empty where it has none.
    pub fn text(&self, key: &str) -> &str {
        self.line.read(key, Value::as_str).unwrap_or_default()
    }
}

/// What every line has.
fn about(key: &str, point: &Point, command: &str, status: &str) -> Result<Vec<(&'static str, Value)>> {
    let m = &point.config.as_ref().unwrap_or(&point.asked).model;
    let (steps, per_layer, total) = match point.has_latents() {
        true => (point.asked.fast.steps, m.latents, m.latent_count()),
        false => (0, 0, 0),
    };
    let parameters = point.config.as_ref().map_or(Value::Null, |config| parameter_count(&config.model).into());
    Ok(vec![
        ("point", point.name.as_str().into()),
        ("status", status.into()),
        ("key", key.into()),
        ("size", point.size.as_str().into()),
        ("kind", m.kind.to_string().into()),
        ("fast_steps", steps.into()),
        ("latents_per_layer", per_layer.into()),
        ("latents_total", total.into()),
        ("budget", point.budget.unwrap_or(point.tokens()).into()),
        ("seed", point.asked.train.seed.into()),
        ("parameters", parameters),
        ("config_sha256", point.config_sha256()?.into()),
        ("command", command.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("sources", SOURCES.into()),
    ])
}

/// The file of results, open for writing by this process alone.
#[derive(Debug)]
pub struct Ledger {
    file: json::Lines,
    finished: HashMap<String, Outcome>,
}

impl Ledger {
    /// Opens or makes the file at `path` and reads which points are finished. A line that was not finished is cut off.
    ///
    /// # Errors
    /// If it cannot be read or written, or another process is writing it.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, lines) = json::Lines::open::<serde_json::Value>(path, |line| line.get("key").is_some())?;
        let mut finished = HashMap::new();
        for line in lines {
            let line = json::from_serde(&line)?;
            if let (Ok(key), Ok("finished")) = (line.read("key", Value::as_str), line.read("status", Value::as_str)) {
                finished.insert(key.to_string(), Outcome { line: line.clone() });
            }
        }
        Ok(Self { file, finished })
    }

    /// The result of that key, if there is one. What failed is not kept: it is tried again.
    pub fn finished(&self, key: &str) -> Option<&Outcome> {
        self.finished.get(key)
    }

    /// Appends an outcome and waits until it is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, outcome: &Outcome) -> Result<()> {
        self.file.write(&outcome.line)?;
        self.file.sync()
    }
}

impl Sweep {
    /// Everything that a point's result depends on, in a hash: its settings, how it is judged, the data by their
    /// fingerprint, the device and the program, by its sources: another one judges the runs that are there again. It does not train them again; `sessions.jsonl` of
    /// each says what trained it.
    ///
    /// # Errors
    /// None that a point can cause.
    pub fn key(&self, point: &Point, data: &str, device: &str) -> Result<String> {
        let on = [
            SOURCES.to_string(),
            device.to_string(),
            point.config_sha256()?,
            data.to_string(),
            self.sequences.to_string(),
            self.samples.to_string(),
        ];
        Ok(sha256(on.join("\n"))[..16].into())
    }

    /// The protocol that a point is judged by: a bound, or exact.
    pub fn protocol(config: &Config) -> Protocol {
        Protocol::of(config.model.kind)[0]
    }
}
