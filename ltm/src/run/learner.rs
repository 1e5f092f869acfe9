//! What computes in a run, whether the steps are done for the first time or repeated.

use super::{Excess, Material, score};
use crate::config::{Config, Work};
use crate::data::Source;
use crate::evaluate::{Evaluator, Protocol, Total};
use crate::json::Value;
use crate::train::Trainer;
use engine::{Device, Result};
use std::sync::Arc;

/// Batches and draws of a validation: enough to see a trend.
const VALIDATION_BATCHES: u64 = 4;
const VALIDATION_DRAWS: usize = 4;

/// Trainer and validation, with all of their memory.
pub(super) struct Learner {
    pub trainer: Trainer,
    validation: Option<(Evaluator, Arc<dyn Source>)>,
}

/// How the model does on held-out sequences, by protocol `elbo`, or `nll` if it has no latents.
#[derive(Clone, Debug)]
pub struct Validation {
    /// Totals over the sequences.
    pub total: Total,
    /// The comparison with the process that made them, if it is known.
    pub excess: Option<Excess>,
}

impl Learner {
    /// # Errors
    /// If the configuration contradicts itself or asks for more than the device can do or hold.
    pub fn new(config: &Config, material: &Material, device: &Device) -> Result<Self> {
        let mut trainer = Trainer::new(config.clone(), device)?;
        let validation = match &material.validation {
            None => None,
            Some(source) => {
                let (steps, store) = (config.fast.steps, &mut trainer.store);
                let evaluator =
                    Evaluator::new(config, protocol(config), steps, VALIDATION_DRAWS, &trainer.params, store)?;
                Some((evaluator, source.clone()))
            }
        };
        config.check_room(&trainer.store, Work::Training)?;
        Ok(Self { trainer, validation })
    }

    /// Scores the first held-out batches; `None` if nothing is held out.
    ///
    /// # Errors
    /// If they cannot be read, or a score is not finite.
    pub fn validate(&mut self) -> Result<Option<Validation>> {
        let Some((evaluator, source)) = &self.validation else { return Ok(None) };
        let config = &self.trainer.config;
        let limit = Some(VALIDATION_BATCHES * config.train.batch as u64);
        let scored = score(evaluator, config, &mut self.trainer.store, source, limit, |_| ())?;
        Ok(Some(Validation { total: scored.total(), excess: scored.excess() }))
    }

    /// The metrics' line of a validation behind the present step.
    pub fn line(&self, validation: &Validation) -> Value {
        let total = &validation.total;
        let (tokens, sequences) = (total.tokens as f64, total.sequences as f64);
        let mut line = vec![
            ("step", self.trainer.step().into()),
            ("protocol", protocol(&self.trainer.config).name().into()),
            ("sequences", total.sequences.into()),
            ("loss", (total.nats / tokens).into()),
            ("nll", (total.nll / tokens).into()),
            ("kl", (total.kl / tokens).into()),
            ("draw_error", (total.draw_error / tokens).into()),
            ("bits_per_byte", total.bits_per_byte().into()),
            ("nats_per_sequence", (total.nats / sequences).into()),
        ];
        line.extend(validation.excess.map(|excess| ("exact_nats_per_sequence", excess.exact.into())));
        Value::object(line)
    }
}

/// What the model is validated by.
fn protocol(config: &Config) -> Protocol {
    Protocol::of(config.model.kind)[0]
}
