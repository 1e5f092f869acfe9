use super::{Point, Sweep};
use crate::eval::{Options, Row, evaluate, validation};
use engine::{Error, Result};
use ltm::config::{Config, Tokenizer, parameter_count};
use ltm::corpus::Corpus;
use ltm::evaluate::Protocol;
use ltm::hash::sha256;
use ltm::json::{self, null_is_nan};
use ltm::run::{Loaded, REPORT_SEED, Run, SOURCES};
use serde::{Deserialize, Serialize};
use std::num::NonZero;
use std::time::Instant;

/// The outcome of a point: a line of the file, with the same names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The point's name.
    pub point: String,
    /// The hash of everything that the result depends on, see [`Sweep::key`]; empty for a failed point.
    pub key: String,
    pub(super) size: String,
    pub(super) kind: String,
    pub(super) fast_steps: usize,
    pub(super) latents_per_layer: usize,
    pub(super) latents_total: usize,
    pub(super) budget: u64,
    pub(super) seed: u64,
    pub(super) parameters: Option<usize>,
    pub(super) config_sha256: String,
    pub(super) command: String,
    pub(super) version: String,
    pub(super) sources: String,
    /// The reason if the point failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The result of a trained and evaluated point.
    #[serde(flatten)]
    pub result: Option<Finished>,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    pub(super) step: usize,
    pub(super) tokens: u64,
    pub(super) targets: u64,
    pub(super) flops_per_token: f64,
    pub(super) flops: f64,
    pub(super) train_seconds: f64,
    pub(super) weights_sha256: String,
    /// `elbo`, or `nll` for a baseline.
    pub protocol: Protocol,
    pub(super) protocol_status: String,
    pub(super) sequences: u64,
    pub(super) sequence_tokens: u64,
    /// exp(Σ nats / Σ tokens).
    pub perplexity: f64,
    /// Its standard error over the choice of sequences; NaN for a single one.
    #[serde(deserialize_with = "null_is_nan")]
    pub(super) perplexity_error: f64,
    pub(super) bits_per_byte: f64,
    pub(super) nll_per_sequence: Option<f64>,
    /// `None` for a baseline.
    pub(super) kl_per_sequence: Option<f64>,
    /// The perplexity of the true source, the least possible, if known.
    pub(super) least_perplexity: Option<f64>,
    /// The perplexity of the best reader without memory that sees as far back as the decoder, on stories of the embedded
    /// corpus.
    #[serde(default)]
    pub(super) floor_perplexity: Option<f64>,
    /// Whether the bound holds, if the exact cost is known.
    pub holds: Option<bool>,
    pub(super) eval_seconds: f64,
    /// Whether the validation text is also training text.
    #[serde(default)]
    pub(super) data_learnt: bool,
}

impl Finished {
    /// Nats per validation sequence.
    pub(super) fn nats(&self) -> f64 {
        self.perplexity.ln() * self.sequence_tokens as f64 / self.sequences as f64
    }

    /// The result from a run's metrics and validation text, with its settings, the number of training targets, whether
    /// the text is also training text, and the seconds of training and evaluation.
    ///
    /// # Errors
    /// If the perplexity is not finite.
    pub fn of(
        point: &Point,
        flops_per_token: f64,
        weights: &str,
        (targets, train_seconds): (u64, f64),
        row: &Row,
        data_learnt: bool,
        eval_seconds: f64,
    ) -> Result<Self> {
        let figures = &row.figures;
        if !figures.perplexity.is_finite() {
            return Err(Error::new("the perplexity of the validation text is not finite"));
        }
        let per_token = figures.sequences as f64 / figures.tokens as f64;
        Ok(Self {
            step: point.asked.train.steps,
            tokens: point.tokens(),
            targets,
            flops_per_token,
            flops: flops_per_token * point.tokens() as f64,
            train_seconds,
            weights_sha256: weights.into(),
            protocol: figures.protocol,
            protocol_status: figures.status.clone(),
            sequences: figures.sequences,
            sequence_tokens: figures.tokens,
            perplexity: figures.perplexity,
            perplexity_error: figures.perplexity * row.total.per_token().error,
            bits_per_byte: figures.bits_per_byte,
            nll_per_sequence: row.per_sequence(figures.nll),
            kl_per_sequence: row.per_sequence(figures.kl),
            floor_perplexity: None,
            least_perplexity: row.exact().map(|exact| (exact * per_token).exp()),
            holds: row.above().map(|above| !above.is_below_zero()),
            eval_seconds,
            data_learnt,
        })
    }
}

/// The cost of this many stories of the embedded corpus for the best reader without memory, in nats; none if they are not
/// the validation text, or a token is not a byte.
fn floor(config: &Config, stories: u64) -> Result<Option<f64>> {
    if !config.data.paths.is_empty() || config.data.tokenizer != Tokenizer::Bytes {
        return Ok(None);
    }
    let (corpus, reach) = (Corpus::of(config)?, config.model.reach());
    Ok((0..stories as u32).map(|i| corpus.windowed_nats(&corpus.document(REPORT_SEED, i).bytes, reach)).sum())
}

impl Outcome {
    /// The outcome of a point by `command`; the key of a failed one is empty.
    pub fn of(key: &str, point: &Point, command: &str, finished: Result<Finished>) -> Self {
        let model = &point.config.as_ref().unwrap_or(&point.asked).model;
        let counted = |n: usize, is_used: bool| if is_used { n } else { 0 };
        Self {
            point: point.name.clone(),
            key: key.into(),
            size: point.size.clone(),
            kind: model.kind.to_string(),
            fast_steps: counted(point.asked.fast.steps, model.kind.infers()),
            latents_per_layer: counted(model.latents, model.kind.reads_latents()),
            latents_total: model.latent_count(),
            budget: point.budget.unwrap_or(point.tokens()),
            seed: point.asked.train.seed,
            parameters: point.config.as_ref().ok().map(|config| parameter_count(&config.model)),
            config_sha256: point.config_sha256(),
            command: command.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            sources: SOURCES.into(),
            reason: finished.as_ref().err().map(ToString::to_string),
            result: finished.ok(),
        }
    }
}

impl Sweep {
    /// A hash of everything that a point's result depends on: its settings, the evaluation, the fingerprint of the
    /// data, the device, and the program's sources. Another version of the program evaluates existing runs again but
    /// does not train them again; `sessions.jsonl` of each run records the version that trained it.
    pub fn key(&self, point: &Point, data: &str, device: &str) -> String {
        let on = (SOURCES, device, point.config_sha256(), data, self.sequences, self.samples);
        sha256(json::line(&on))[..16].into()
    }

    /// The cost of the validation text for a point's model, by a bound or exactly. Calls `progress` with the number of
    /// sequences done and the total.
    ///
    /// # Errors
    /// Text or metrics that cannot be read, and scores that are not finite.
    pub fn judge(
        &self,
        point: &Point,
        flops_per_token: f64,
        run: &Run,
        model: &mut Loaded,
        progress: impl FnMut(u64, u64),
    ) -> Result<Finished> {
        let begun = Instant::now();
        let (config, limit) = (&run.config, self.sequences.map_or(64, NonZero::get));
        let (source, text) = validation(run, model, limit)?;
        let protocols = vec![Protocol::of(config.model.kind)[0]];
        let (steps, samples) = (config.fast.steps, self.samples.map_or(16, NonZero::get));
        let options = Options { protocols, steps, samples, limit: Some(limit) };
        let rows = evaluate(model, &source, &options, progress)?;
        let seconds = begun.elapsed().as_secs_f64();
        let (weights, learnt) = (&model.weights, text.is_training_text);
        let finished = Finished::of(point, flops_per_token, weights, run.effort()?, &rows[0], learnt, seconds)?;
        let floor = floor(config, finished.sequences)?.map(|nats| (nats / finished.sequence_tokens as f64).exp());
        Ok(Finished { floor_perplexity: floor, ..finished })
    }
}
