use crate::config::{ModelConfig, ModelKind};
use crate::data::Batch;
use crate::model::oracle;
use autograd::{Id, Store};
use engine::{Buffer, DType, Error, Result, Spec};

/// The buffers of a batch in the store.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// `[B, N]` i32.
    pub tokens: Id,
    /// `[B, N]` i32.
    pub targets: Id,
    /// `[B]` i32: identity of each sample, which keys its noise in any batch and position.
    pub samples: Id,
    /// `[B, L·K, d]`: the latents that the oracle is told, `None` for other kinds of model.
    pub told: Option<Id>,
    /// `[1]`: 1, the weight of a token in a sum over tokens.
    pub one: Id,
    /// `[1]`: 1 / counted targets of the batch, the weight of a token in the mean.
    pub mean: Id,
    /// Samples B.
    pub batch: usize,
    /// Tokens per sample N.
    pub sequence: usize,
}

impl Inputs {
    /// Allocates buffers for `batch` samples of `sequence` tokens.
    pub fn new(model: &ModelConfig, batch: usize, sequence: usize, float: DType, store: &mut Store) -> Self {
        let grid = Spec::new(DType::I32, &[batch, sequence]);
        let latents = Spec::new(float, &[batch, model.latent_count(), model.dim]);
        Self {
            tokens: store.alloc(grid),
            targets: store.alloc(grid),
            samples: store.alloc(Spec::new(DType::I32, &[batch])),
            told: (model.kind == ModelKind::Oracle).then(|| store.alloc(latents)),
            one: store.insert(Buffer::from_f64(float, &[1], &[1.0])),
            mean: store.insert(Buffer::from_f64(float, &[1], &[1.0])),
            batch,
            sequence,
        }
    }

    /// Loads a batch. Without any scored target, posteriors only move towards the prior.
    ///
    /// # Errors
    /// If it has the wrong size or a token beyond the vocabulary, or an oracle meets a text without known facts.
    pub fn load(&self, store: &mut Store, model: &ModelConfig, batch: &Batch) -> Result<()> {
        let (samples, tokens) = (batch.samples.len(), batch.tokens.len());
        if samples != self.batch || tokens != samples * self.sequence || batch.targets.len() != tokens {
            let want = format!("{} of {} tokens", self.batch, self.sequence);
            return Err(Error::new(format!("a batch of {samples} samples and {tokens} tokens, must be {want}")));
        }
        let beyond = |t: &i32, lowest: i32| *t < lowest || *t >= model.vocab as i32;
        let input = batch.tokens.iter().find(|t| beyond(t, 0));
        if let Some(t) = input.or_else(|| batch.targets.iter().find(|t| beyond(t, -1))) {
            return Err(Error::new(format!("token {t} is beyond the vocabulary of {}", model.vocab)));
        }
        if let Some(z) = self.told {
            let z = store.get_mut(z);
            let mut values = vec![0.0; z.len()];
            for (row, sample) in values.chunks_mut(z.len() / samples).zip(&batch.samples) {
                match sample.facts {
                    Some(facts) => oracle::code(facts.values, row),
                    // A row without a sample.
                    None if sample.scored == 0 => {}
                    None => {
                        return Err(Error::usage(
                            "model.kind = oracle is told the facts of every story of the embedded corpus, and this text has none",
                        ));
                    }
                }
            }
            z.set_f64(&values);
        }
        store.get_mut(self.tokens).write(&batch.tokens);
        store.get_mut(self.targets).write(&batch.targets);
        let ids: Vec<i32> = batch.samples.iter().map(|sample| sample.id as i32).collect();
        store.get_mut(self.samples).write(&ids);
        self.count(store, batch);
        Ok(())
    }

    /// Sets the weight of a token in the mean by the counted targets of `batch`, of which a part is loaded.
    pub fn count(&self, store: &mut Store, batch: &Batch) {
        let count = batch.targets.iter().filter(|&&t| t >= 0).count();
        store.get_mut(self.mean).set_f64(&[1.0 / count.max(1) as f64]);
    }
}
