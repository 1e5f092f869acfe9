use super::{Point, Sweep};
use engine::{Error, Result};
use ltm::config::{Config, parameter_count};
use ltm::evaluate::{Evaluator, Excess, Protocol, SequenceScore, Total};
use ltm::hash::sha256;
use ltm::json::finite_or_null;
use ltm::run::{Loaded, Run, SOURCES, validation_stories};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What became of a point: a line of the file, by the names that it has there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The point's name.
    pub point: String,
    /// What the result depends on, see [`Sweep::key`]; empty for a point that failed.
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
    /// The result, or why there is none.
    #[serde(flatten)]
    pub status: Status,
}

/// How a point ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Status {
    /// It was trained and judged.
    Finished(Box<Finished>),
    /// It could not be.
    Failed {
        /// Why.
        reason: String,
    },
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
    #[serde(flatten)]
    pub(super) judgement: Judgement,
}

/// What a point's validation text costs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// `elbo`, or `nll` without latents.
    pub protocol: Protocol,
    pub(super) protocol_status: String,
    pub(super) sequences: u64,
    pub(super) sequence_tokens: u64,
    /// exp(Σ nats / Σ tokens).
    pub perplexity: f64,
    /// Its standard error over the choice of sequences; not a number for a single one.
    #[serde(with = "finite_or_null")]
    pub(super) perplexity_error: f64,
    pub(super) bits_per_byte: f64,
    pub(super) nll_per_sequence: f64,
    pub(super) kl_per_sequence: f64,
    /// The perplexity of the process that made the sequences, the least possible, where it is known.
    pub(super) least_perplexity: Option<f64>,
    /// Whether a bound behaves as one, where the truth is known.
    pub holds: Option<bool>,
    pub(super) eval_seconds: f64,
}

impl Judgement {
    /// What scores say that took `seconds`.
    ///
    /// # Errors
    /// If the perplexity is not finite.
    pub fn of(protocol: Protocol, scores: &[SequenceScore], seconds: f64) -> Result<Self> {
        let total = Total::of(scores);
        let excess = Excess::of(scores);
        let (sequences, perplexity) = (total.sequences as f64, total.perplexity());
        if !perplexity.is_finite() {
            return Err(Error::new("the perplexity of the validation text is not finite"));
        }
        Ok(Self {
            protocol,
            protocol_status: protocol.status().into(),
            sequences: total.sequences,
            sequence_tokens: total.tokens,
            perplexity,
            perplexity_error: perplexity * total.per_token().error,
            bits_per_byte: total.bits_per_byte(),
            nll_per_sequence: total.nll / sequences,
            kl_per_sequence: total.kl / sequences,
            least_perplexity: excess.map(|excess| (excess.exact * sequences / total.tokens as f64).exp()),
            holds: excess.map(|excess| excess.holds()),
            eval_seconds: seconds,
        })
    }
}

impl Outcome {
    /// A finished point, by whatever `command` trained and judged it; training costs `flops_per_token`.
    ///
    /// # Errors
    /// Metrics of the run that cannot be read.
    pub fn finished(
        key: &str,
        point: &Point,
        command: &str,
        flops_per_token: f64,
        (run, weights): (&Run, &str),
        judgement: Judgement,
    ) -> Result<Self> {
        let (targets, train_seconds) = run.effort()?;
        let finished = Finished {
            step: point.asked.train.steps,
            tokens: point.tokens(),
            targets,
            flops_per_token,
            flops: flops_per_token * point.tokens() as f64,
            train_seconds,
            weights_sha256: weights.into(),
            judgement,
        };
        Self::new(key, point, command, Status::Finished(Box::new(finished)))
    }

    /// A point that could not be trained or judged.
    ///
    /// # Errors
    /// None that a point can cause.
    pub fn failed(point: &Point, command: &str, reason: &Error) -> Result<Self> {
        Self::new("", point, command, Status::Failed { reason: reason.to_string() })
    }

    fn new(key: &str, point: &Point, command: &str, status: Status) -> Result<Self> {
        let model = &point.config.as_ref().unwrap_or(&point.asked).model;
        let of_latents = |n: usize| if point.has_latents() { n } else { 0 };
        Ok(Self {
            point: point.name.clone(),
            key: key.into(),
            size: point.size.clone(),
            kind: model.kind.to_string(),
            fast_steps: of_latents(point.asked.fast.steps),
            latents_per_layer: of_latents(model.latents),
            latents_total: of_latents(model.latent_count()),
            budget: point.budget.unwrap_or(point.tokens()),
            seed: point.asked.train.seed,
            parameters: point.config.as_ref().ok().map(|config| parameter_count(&config.model)),
            config_sha256: point.config_sha256()?,
            command: command.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            sources: SOURCES.into(),
            status,
        })
    }

    /// The result, if there is one.
    pub fn result(&self) -> Option<&Finished> {
        match &self.status {
            Status::Finished(finished) => Some(finished),
            Status::Failed { .. } => None,
        }
    }

    /// Why there is no result, if there is none.
    pub fn reason(&self) -> Option<&str> {
        match &self.status {
            Status::Finished(_) => None,
            Status::Failed { reason } => Some(reason),
        }
    }
}

impl Sweep {
    /// Everything that a point's result depends on, in a hash: its settings, how it is judged, the data by their fingerprint,
    /// the device, and the program by its sources. Another program judges the runs that are there again and does not train
    /// them again; `sessions.jsonl` of each says what trained it.
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

    /// What the validation text of a run costs its model, by a bound or exactly. Calls `progress` with the number of
    /// sequences done and that of all.
    ///
    /// # Errors
    /// Text that cannot be read, and scores that are not finite.
    pub fn judge(&self, run: &Run, model: &mut Loaded, mut progress: impl FnMut(u64, u64)) -> Result<Judgement> {
        let begun = Instant::now();
        let config: &Config = run.config();
        let source = if config.data.paths.is_empty() {
            validation_stories(config.model.seq, self.sequences)?
        } else {
            crate::eval::held_out(run, model)?.source
        };
        let protocol = Protocol::of(config.model.kind)[0];
        let (steps, store) = (config.fast.steps, &mut model.store);
        let evaluator = Evaluator::new(config, protocol, steps, self.samples, &model.params, store)?;
        config.check_room(store, ltm::config::Work::Evaluation)?;
        let count = source.samples().unwrap_or(u64::MAX).min(self.sequences);
        let scores = evaluator.score(store, &source, Some(count), |done| progress(done, count))?;
        Judgement::of(protocol, &scores, begun.elapsed().as_secs_f64())
    }
}
