use super::folder::{MOMENTS, WEIGHTS};
use super::metrics::ValidationLine;
use super::{Material, follower};
use crate::checkpoint::Checkpoint;
use crate::config::{Chunking, Config, Work};
use crate::data::{Batch, Shuffle, Source};
use crate::diffusion::Lengths;
use crate::evaluate::{Evaluator, Excess, Protocol, Total};
use crate::generate::Writer;
use crate::train::{StepReport, Trainer};
use engine::{Device, Result};
use std::sync::Arc;

/// Batches and draws of a validation: enough to see a trend.
const VALIDATION_BATCHES: u64 = 4;
const VALIDATION_DRAWS: usize = 4;

/// Most tokens of a sample: enough to recognise words.
const SAMPLE_TOKENS: usize = 100;

/// The computing part of a run, for training and for replay: trainer, training text and validation, with all their
/// memory.
pub(super) struct Stepper {
    pub trainer: Trainer,
    training: Arc<dyn Source>,
    shuffle: Shuffle,
    batch: Batch,
    validation: Option<(Evaluator, Arc<dyn Source>)>,
    /// How long training documents are, for masked diffusion on documents.
    pub lengths: Option<Lengths>,
}

impl Stepper {
    /// The state after a checkpoint, or before the first step.
    pub fn new(config: &Config, material: &Material, device: &Device, checkpoint: Option<&Checkpoint>) -> Result<Self> {
        let data = ("data", material.data.fingerprint.clone());
        follower::agree(&*material.ranks, config, device, &[data])?;
        let mut trainer = Trainer::among(config.clone(), device, material.ranks.clone())?;
        let pays = config.model.kind.method().is_some() && config.data.chunking == Chunking::Documents;
        let lengths = pays.then(|| Lengths::of(&*material.training, config.model.seq)).transpose()?;
        let validation = match &material.validation {
            None => None,
            Some(source) => {
                let (protocol, steps) = (protocol(config), config.fast.steps);
                let Trainer { params, store, .. } = &mut trainer;
                let mut evaluator = Evaluator::new(config, protocol, steps, VALIDATION_DRAWS, params, store)?;
                evaluator.cut(config.data.chunking, lengths.as_ref());
                evaluator.ranks = material.ranks.clone();
                Some((evaluator, source.clone()))
            }
        };
        config.check_room(&trainer.store, Work::Training)?;
        if let Some(checkpoint) = checkpoint {
            trainer.restore(&checkpoint.file(WEIGHTS)?, &checkpoint.file(MOMENTS)?, checkpoint.step)?;
        }
        trainer.share()?;
        let training = material.training.clone();
        let shuffle = Shuffle::new(training.samples(), config.train.seed);
        let batch = Batch::new(config.train.batch, config.model.seq);
        Ok(Self { trainer, training, shuffle, batch, validation, lengths })
    }

    /// Does the next step.
    pub fn step(&mut self) -> Result<StepReport> {
        let samples = (self.samples()..).map(|place| Some(self.shuffle.sample_at(place)));
        self.batch.fill(&*self.training, samples)?;
        self.trainer.train(&self.batch)
    }

    /// Samples that the steps done have seen.
    pub fn samples(&self) -> u64 {
        self.trainer.step * self.batch.samples.len() as u64
    }

    /// Scores the first batches of validation text after the current step; `None` without validation text. All processes call this
    /// after the same step.
    pub fn validate(&mut self) -> Result<Option<ValidationLine>> {
        let Some((evaluator, source)) = &self.validation else { return Ok(None) };
        let limit = Some(VALIDATION_BATCHES * self.trainer.config.train.batch as u64);
        let scores = evaluator.score(&mut self.trainer.store, source, limit, |_| ())?;
        let protocol = protocol(&self.trainer.config);
        Ok(Some(ValidationLine::new(self.trainer.step, protocol, &Total::of(&scores), Excess::of(&scores))))
    }

    /// The writer of samples, if the configuration wants any and the device can generate.
    pub fn writer(&mut self, material: &Material) -> Result<Option<Writer>> {
        let Trainer { config, params, store, .. } = &mut self.trainer;
        if config.train.sample_every == 0 || config.check_device(&store.device, Work::Generation).is_err() {
            return Ok(None);
        }
        let tokens = SAMPLE_TOKENS.min(config.model.seq);
        let writer =
            Writer::unprompted(config, params, store, material.tokenizer.clone(), self.lengths.as_ref(), tokens);
        writer.map(Some).map_err(|error| error.hint("train.sample_every = 0 trains without samples of text"))
    }

    /// A warning if the configuration wants samples and the device cannot generate.
    pub fn no_samples(&self) -> Option<String> {
        let Trainer { config, store, .. } = &self.trainer;
        let error = config.check_device(&store.device, Work::Generation).err()?;
        let wanted = config.train.sample_every > 0;
        wanted.then(|| format!("no samples of text: {error}; train.sample_every = 0 wants none"))
    }
}

/// The validation protocol.
fn protocol(config: &Config) -> Protocol {
    Protocol::of(config.model.kind)[0]
}
