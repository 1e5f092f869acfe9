use crate::config::ModelConfig;
use autograd::{Id, Store};
use engine::{Buffer, DType, Error, Result, Spec};

/// Sequences to learn from or to score: B rows of N tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Inputs, row by row.
    pub tokens: Vec<i32>,
    /// The token that follows each input; −1 is ignored.
    pub targets: Vec<i32>,
    /// Identity of each sample: keys its noise, wherever in whichever batch it stands.
    pub samples: Vec<i32>,
    /// Bytes of text that the targets of each sample stand for.
    pub bytes: Vec<u64>,
}

impl Batch {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Targets that count, of sample `b`.
    pub fn scored(&self, b: usize) -> usize {
        let n = self.targets.len() / self.len();
        self.targets[b * n..(b + 1) * n].iter().filter(|&&t| t >= 0).count()
    }

    /// Targets that count, of all samples.
    pub fn count(&self) -> usize {
        self.targets.iter().filter(|&&t| t >= 0).count()
    }

    /// Fills up to `batch` samples with copies of the first whose targets are all ignored.
    pub fn pad(&mut self, batch: usize) {
        let n = self.tokens.len() / self.len().max(1);
        while self.len() < batch {
            self.tokens.extend_from_within(..n);
            self.targets.extend(std::iter::repeat_n(-1, n));
            self.samples.push(self.samples[0]);
            self.bytes.push(0);
        }
    }
}

/// The buffers of the store that a batch is loaded into.
#[derive(Clone, Copy, Debug)]
pub struct Inputs {
    /// `[B, N]` i32.
    pub tokens: Id,
    /// `[B, N]` i32.
    pub targets: Id,
    /// `[B]` i32.
    pub samples: Id,
    /// `[1]`: 1, the weight of a token in a sum over tokens.
    pub one: Id,
    /// `[1]`: 1 / counted targets of the batch, the weight of a token in the mean.
    pub mean: Id,
    /// Samples B.
    pub batch: usize,
    /// Tokens per sample N.
    pub tokens_per_sample: usize,
}

impl Inputs {
    /// Allocates buffers for `batch` samples of `tokens` tokens.
    pub fn new(batch: usize, tokens: usize, float: DType, store: &mut Store) -> Self {
        let grid = Spec::new(DType::I32, &[batch, tokens]);
        Self {
            tokens: store.alloc(grid),
            targets: store.alloc(grid),
            samples: store.alloc(Spec::new(DType::I32, &[batch])),
            one: store.insert(Buffer::from_f64(float, &[1], &[1.0])),
            mean: store.insert(Buffer::from_f64(float, &[1], &[1.0])),
            batch,
            tokens_per_sample: tokens,
        }
    }

    /// Loads a batch, padded with ignored samples where it is short.
    ///
    /// # Errors
    /// If it has the wrong size, no target that counts, or a token beyond the vocabulary.
    pub fn load(&self, store: &mut Store, model: &ModelConfig, batch: &Batch) -> Result<()> {
        let mut batch = batch.clone();
        if batch.is_empty() || batch.len() > self.batch || batch.tokens.len() != batch.len() * self.tokens_per_sample {
            return Err(Error::new(format!(
                "a batch of {} samples and {} tokens does not fit [{}, {}]",
                batch.len(),
                batch.tokens.len(),
                self.batch,
                self.tokens_per_sample
            )));
        }
        let beyond = |t: &i32, lowest: i32| *t < lowest || *t >= model.vocab as i32;
        let inputs = batch.tokens.iter().find(|t| beyond(t, 0));
        if let Some(t) = inputs.or_else(|| batch.targets.iter().find(|t| beyond(t, -1))) {
            return Err(Error::new(format!("token {t} is beyond the vocabulary of {}", model.vocab)));
        }
        let count = batch.count();
        if count == 0 {
            return Err(Error::new("every target of the batch is ignored: there is nothing to learn from".to_string()));
        }
        batch.pad(self.batch);
        store.get_mut(self.tokens).as_mut_slice::<i32>().copy_from_slice(&batch.tokens);
        store.get_mut(self.targets).as_mut_slice::<i32>().copy_from_slice(&batch.targets);
        store.get_mut(self.samples).as_mut_slice::<i32>().copy_from_slice(&batch.samples);
        store.get_mut(self.mean).set_f64(&[1.0 / count as f64]);
        Ok(())
    }
}
