use super::folder::{Run, State, WEIGHTS};
use super::follower;
use crate::checkpoint::{self, Checkpoint};
use crate::config::{Config, Work};
use crate::diffusion::Lengths;
use crate::model::Params;
use crate::safetensors::SafeTensors;
use autograd::Store;
use engine::{Alone, Collective, DType, Device, Result};
use std::sync::Arc;

/// A trained decoder, ready for evaluation or generation.
#[derive(Debug)]
pub struct Loaded {
    /// The run's settings.
    pub config: Config,
    /// All memory.
    pub store: Store,
    /// The weights, f32.
    pub params: Params,
    /// The step after which they were saved.
    pub step: u64,
    /// SHA-256 of the file of weights, in hexadecimal.
    pub weights: String,
    /// Fingerprint of its training data, see [`Data::fingerprint`](super::Data::fingerprint).
    pub data: String,
    /// How long its training documents are, for masked diffusion on documents.
    pub lengths: Option<Lengths>,
    /// One line for each newer checkpoint that was skipped.
    pub warnings: Vec<String>,
    /// The processes that share its evaluation, one unless it is [`among`](Self::among) others.
    pub ranks: Arc<dyn Collective>,
}

impl Loaded {
    /// Shares the evaluation with the processes that have the same model and the same `facts`: names and texts.
    ///
    /// # Errors
    /// A usage error that names the first process which differs from process 0, and in what.
    pub fn among(self, ranks: Arc<dyn Collective>, facts: &[(&'static str, String)]) -> Result<Self> {
        let facts = [&[("weights", self.weights.clone())], facts].concat();
        follower::agree(&*ranks, &self.config, &self.store.device, &facts)?;
        Ok(Self { ranks, ..self })
    }
}

impl Run {
    /// Loads the weights of the [choice](Self::choice) to `device`.
    ///
    /// # Errors
    /// If there are none, they belong to another model, or the device lacks kernels or memory for `work`.
    pub fn load(&self, device: &Device, work: Work) -> Result<Loaded> {
        self.config.check_device(device, work)?;
        loop {
            let (checkpoint, warnings) = self.checkpoint()?;
            match self.load_from(&checkpoint, device, work) {
                // A run under way has removed it, and has newer ones.
                Err(_) if checkpoint::is_gone(&self.path, checkpoint.step) => {}
                loaded => return loaded.map(|loaded| Loaded { warnings, ..loaded }),
            }
        }
    }

    fn load_from(&self, checkpoint: &Checkpoint, device: &Device, work: Work) -> Result<Loaded> {
        let file = checkpoint.file(WEIGHTS)?;
        let mut store = Store::new(self.config.train.precision.on(device));
        let params = Params::new(&self.config.model, DType::F32, &mut store);
        let params = params.computed_in(self.config.train.precision.stored_on(device));
        self.config.check_room(&store, work)?;
        params.load(&mut store, &SafeTensors::open(&file)?, "").map_err(|e| e.at(file.display()))?;
        let State { data, lengths, .. } = State::of(checkpoint)?;
        Ok(Loaded {
            config: self.config.clone(),
            store,
            params,
            step: checkpoint.step,
            weights: checkpoint.entry(WEIGHTS)?.sha256.clone(),
            data,
            lengths,
            warnings: Vec::new(),
            ranks: Arc::new(Alone),
        })
    }
}
