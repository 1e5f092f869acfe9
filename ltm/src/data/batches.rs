//! Batches of samples, and the order of samples in training. Resuming needs only the number of samples seen.

use super::sources::{IGNORED, SampleInfo, Source};
use engine::Result;
use engine::rng::Stream;

/// Separates the order of samples from all other uses of randomness: "SHUF".
const SITE: u32 = 0x5348_5546;

/// Several samples, one after the other.
#[derive(Clone, Debug)]
pub struct Batch {
    /// [B, N] inputs.
    pub tokens: Vec<i32>,
    /// [B, N] targets.
    pub targets: Vec<i32>,
    /// B samples.
    pub samples: Vec<SampleInfo>,
}

impl Batch {
    /// A batch for samples 0, 1, … of `sequence` tokens, `size` in all.
    pub fn new(size: usize, sequence: usize) -> Self {
        let tokens = vec![0; size * sequence];
        let samples = (0..size as u32).map(|id| SampleInfo { id, ..SampleInfo::default() }).collect();
        Self { targets: tokens.clone(), tokens, samples }
    }

    /// Fills the rows with these samples of `source`, one each; a row without a sample has no target.
    ///
    /// # Errors
    /// Those of [`Source::fill`].
    pub fn fill(&mut self, source: &dyn Source, samples: impl IntoIterator<Item = Option<u64>>) -> Result<()> {
        let n = self.tokens.len() / self.samples.len();
        let rows = self.tokens.chunks_exact_mut(n).zip(self.targets.chunks_exact_mut(n)).zip(&mut self.samples);
        for (sample, ((tokens, targets), info)) in samples.into_iter().zip(rows) {
            *info = match sample {
                Some(index) => source.fill(index, tokens, targets)?,
                None => {
                    tokens.fill(0);
                    targets.fill(IGNORED);
                    SampleInfo::default()
                }
            };
        }
        Ok(())
    }

    /// Part number `part` of consecutive parts of `rows` samples each.
    ///
    /// # Panics
    /// If there are not so many samples.
    pub fn part(&self, rows: usize, part: usize) -> Self {
        let (n, samples) = (self.tokens.len() / self.samples.len(), part * rows..(part + 1) * rows);
        let tokens = samples.start * n..samples.end * n;
        Self {
            tokens: self.tokens[tokens.clone()].to_vec(),
            targets: self.targets[tokens].to_vec(),
            samples: self.samples[samples].to_vec(),
        }
    }

    /// Number of scored targets.
    pub fn scored(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.scored)).sum()
    }

    /// Bytes of text of the scored targets.
    pub fn bytes(&self) -> u64 {
        self.samples.iter().map(|sample| sample.bytes).sum()
    }
}

/// The order of training: all samples in every epoch, shuffled anew each time; an endless source comes in order.
pub struct Shuffle {
    /// Number of samples, less than 2³².
    samples: Option<u64>,
    seed: u64,
    /// The latest epoch, and its order.
    epoch: u64,
    order: Vec<u32>,
}

impl Shuffle {
    /// The order of a source's samples that `seed` gives.
    pub fn new(samples: Option<u64>, seed: u64) -> Self {
        Self { samples, seed, epoch: 0, order: Vec::new() }
    }

    /// The index in its source of the sample at `place` in the order. Allocates only at the start of an epoch.
    pub fn sample_at(&mut self, place: u64) -> u64 {
        let Some(samples) = self.samples else { return place };
        let epoch = place / samples;
        if self.order.is_empty() || self.epoch != epoch {
            self.epoch = epoch;
            self.order = Stream::new(self.seed, SITE).step(epoch as u32).permutation(samples as usize);
        }
        self.order[(place % samples) as usize].into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Chunking::Windows;
    use crate::data::{Sequences, Tail, memory};

    #[test]
    fn each_epoch_is_another_permutation_and_any_place_can_be_resumed_at() {
        let shuffled = |seed| Shuffle::new(Some(100), seed);
        let order = |seed| {
            let mut shuffle = shuffled(seed);
            (0..300).map(|place| shuffle.sample_at(place)).collect::<Vec<_>>()
        };
        let all = order(1);
        for epoch in all.chunks(100) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..100));
        }
        assert_ne!(all[..100], all[100..200]);
        assert_ne!(all, order(2));
        for place in [0, 99, 100, 257] {
            assert_eq!(shuffled(1).sample_at(place), all[place as usize]);
        }
    }

    #[test]
    fn rows_without_a_sample_hold_nothing() {
        let source = Sequences::new(vec![memory(&[0, 1, 2, 3, 4])], Windows, 2, Tail::Pad).unwrap();
        let mut batch = Batch::new(2, 2);
        for (samples, tokens, targets, scored) in [
            ([Some(0), Some(1)], [256, 0, 1, 2], [0, 1, 2, 3], 4),
            ([Some(2), None], [3, 257, 0, 0], [4, -1, -1, -1], 1),
        ] {
            batch.fill(&source, samples).unwrap();
            assert_eq!((&batch.tokens[..], &batch.targets[..]), (&tokens[..], &targets[..]));
            assert_eq!((batch.scored(), batch.bytes()), (scored, scored));
        }
        assert_eq!(batch.samples[1], SampleInfo::default());
    }
}
