//! Batches of samples, in order or shuffled. Resuming needs no more than the number of samples seen.

use super::sources::{IGNORED, SampleInfo, Source};
use engine::rng::Stream;
use std::sync::Arc;

/// Separates the order of samples from all other uses of randomness: "SHUF".
const SITE: u32 = 0x5348_5546;

/// The order in which samples come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Once through, in order; afterwards samples without any scored target, which fill up the last batch.
    Once,
    /// Again and again, each time in another order drawn from this seed. A source without end comes in order.
    Shuffled {
        /// The run's seed.
        seed: u64,
    },
}

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
    /// Room for `size` samples of `sequence` tokens.
    pub fn new(size: usize, sequence: usize) -> Self {
        let tokens = vec![0; size * sequence];
        Self { targets: tokens.clone(), tokens, samples: vec![SampleInfo::default(); size] }
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

/// Samples of a source in an order; any place in that order can be asked for.
pub struct Sampler {
    source: Arc<dyn Source>,
    order: Order,
    /// The last epoch asked for, and its order.
    epoch: Option<(u64, Vec<u32>)>,
}

impl Sampler {
    /// Samples of `source` in `order`. Less than 2³² of them can be shuffled.
    pub fn new(source: Arc<dyn Source>, order: Order) -> Self {
        Self { source, order, epoch: None }
    }

    /// Fills a batch with the samples from place `first` on. Itself allocates at the start of an epoch only.
    pub fn fill(&mut self, first: u64, batch: &mut Batch) {
        let n = self.source.sequence();
        let places = batch.tokens.chunks_exact_mut(n).zip(batch.targets.chunks_exact_mut(n)).zip(&mut batch.samples);
        for (place, ((tokens, targets), info)) in (first..).zip(places) {
            *info = match self.sample_at(place) {
                Some(index) => self.source.fill(index, tokens, targets),
                None => {
                    tokens.fill(0);
                    targets.fill(IGNORED);
                    SampleInfo { id: place as u32, ..SampleInfo::default() }
                }
            };
        }
    }

    /// The number, in its source, of the sample at `place` of the order; `None` after the end.
    pub fn sample_at(&mut self, place: u64) -> Option<u64> {
        let Some(samples) = self.source.samples() else { return Some(place) };
        match self.order {
            Order::Once => (place < samples).then_some(place),
            Order::Shuffled { seed } => {
                let epoch = place / samples;
                if self.epoch.as_ref().is_none_or(|(at, _)| *at != epoch) {
                    let stream = Stream::new(seed, SITE).step(epoch as u32);
                    self.epoch = Some((epoch, stream.permutation(samples as usize)));
                }
                self.epoch.as_ref().map(|(_, order)| u64::from(order[(place % samples) as usize]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Chunking::Windows;
    use crate::data::{Sequences, Tail, memory};

    /// Windows of two over so many tokens.
    fn sampler(tokens: u16, tail: Tail, order: Order) -> Sampler {
        let tokens: Vec<u16> = (0..tokens).collect();
        Sampler::new(Arc::new(Sequences::new(vec![memory(&tokens)], Windows, 2, tail).unwrap()), order)
    }

    fn shuffled(seed: u64) -> Sampler {
        sampler(200, Tail::Drop, Order::Shuffled { seed })
    }

    #[test]
    fn each_epoch_is_another_permutation_and_any_place_can_be_resumed_at() {
        let order = |seed| {
            let mut sampler = shuffled(seed);
            (0..300).map(|place| sampler.sample_at(place).unwrap()).collect::<Vec<_>>()
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
            assert_eq!(shuffled(1).sample_at(place), Some(all[place as usize]));
        }
    }

    #[test]
    fn the_last_batch_is_filled_up_with_nothing() {
        let mut sampler = sampler(5, Tail::Pad, Order::Once);
        let mut batch = Batch::new(2, 2);
        for (first, tokens, targets, scored) in
            [(0, [256, 0, 1, 2], [0, 1, 2, 3], 4), (2, [3, 257, 0, 0], [4, -1, -1, -1], 1)]
        {
            sampler.fill(first, &mut batch);
            assert_eq!((&batch.tokens[..], &batch.targets[..]), (&tokens[..], &targets[..]));
            assert_eq!((batch.scored(), batch.bytes()), (scored, scored));
        }
        assert_eq!(batch.samples[1], SampleInfo { id: 3, ..SampleInfo::default() });
    }

    /// A batch is its samples: the same whatever the batch size.
    #[test]
    fn batches_of_any_size_hold_the_same_samples() {
        let mut sampler = shuffled(4);
        let (mut four, mut three) = (Batch::new(4, 2), Batch::new(3, 2));
        sampler.fill(98, &mut four);
        sampler.fill(99, &mut three);
        assert_eq!(
            (&four.tokens[2..], &four.targets[2..], &four.samples[1..]),
            (&*three.tokens, &*three.targets, &*three.samples)
        );
    }
}
