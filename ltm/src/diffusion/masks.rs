use super::schedule::EPSILON;
use super::{SITE, Schedule, Seen, Shape, Text};
use crate::config::Masking;
use engine::rng::Stream;
use std::ops::Range;

/// Sites of a step's shared number, and of the uniforms that decide which positions are masked.
const SHIFT: u32 = SITE;
const MASKS: u32 = SITE + 1;

/// Place number `place` of `places` evenly spaced numbers in [0, 1), which `shift` moves together: each is uniform, and
/// together they cover the interval evenly.
pub(super) fn stratum(shift: f64, place: usize, places: usize) -> f64 {
    (shift + place as f64 / places as f64).fract()
}

/// The number of masks among `n` positions, uniform on 1..=n, from a number in [0, 1).
pub(super) fn count_of(n: usize, uniform: f64) -> usize {
    // The product may round up to n.
    n.min(1 + (n as f64 * uniform) as usize)
}

/// The masks of one text, the time that they stand for, and the weight of their costs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Masks {
    /// Masked positions, in order.
    pub at: Vec<usize>,
    pub t: f64,
    pub weight: f64,
}

impl Masks {
    /// The masks at time `t`: the positions whose uniform is below a(t).
    pub fn at_time(t: f64, schedule: Schedule, uniforms: &[(usize, f64)]) -> Self {
        let a = schedule.masked(t);
        let at = uniforms.iter().filter(|(_, u)| *u < a).map(|&(i, _)| i).collect();
        Self { at, t, weight: schedule.weight(t) }
    }

    /// `m` masks: the positions with the m least uniforms. The time is that at which the last of them became a mask, with
    /// a(t) the m-th least uniform; given m it has the distribution that makes the weight n/m unbiased for every network.
    pub fn by_count(m: usize, schedule: Schedule, uniforms: &[(usize, f64)]) -> Self {
        let mut order = uniforms.to_vec();
        order.sort_by(|a, b| a.1.total_cmp(&b.1));
        let t = schedule.time(order[m - 1].1);
        let mut at: Vec<usize> = order[..m].iter().map(|&(i, _)| i).collect();
        at.sort_unstable();
        Self { at, t, weight: uniforms.len() as f64 / m as f64 }
    }

    /// The masks that the papers' code evaluates with: t in [ε, 1) at a number in [0, 1), masks with probability (1−ε)t.
    pub fn of_the_papers(stratum: f64, uniforms: &[(usize, f64)]) -> Self {
        let t = EPSILON + (1.0 - EPSILON) * stratum;
        let Self { at, .. } = Self::at_time((1.0 - EPSILON) * t, Schedule::Linear, uniforms);
        Self { at, t, weight: t.recip() }
    }
}

/// A batch of texts with masks, for a training step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaskedBatch {
    /// What the network reads.
    pub seen: Seen,
    /// `[B, N]`: the token of every masked position, −1 elsewhere.
    pub targets: Vec<i32>,
    /// `[B]`: the weight of the costs of a text's masked positions. The weighted sum estimates the bound in nats per token: the
    /// divisor is the number of maskable positions in the batch, masked or not.
    pub weights: Vec<f64>,
}

/// Draws the masks of training.
///
/// The times of a batch share one uniform number u: t_b = 1 − frac(u + b/B) in (0, 1] for place b of B (MD4's way), so that
/// they cover the interval evenly. u depends on the seed and the step, the uniform of a position on these, the sample and the
/// position.
#[derive(Clone, Copy, Debug)]
pub struct Masker {
    /// The schedule a(t).
    pub schedule: Schedule,
    /// How masks are drawn.
    pub masking: Masking,
    /// The run's seed.
    pub seed: u64,
}

impl Masker {
    /// The masks of step number `step`, for the texts at `places` of its batch.
    ///
    /// # Panics
    /// If a text is longer than the network's positions.
    pub fn batch(&self, texts: &[Text], places: Range<usize>, shape: Shape, step: u32) -> MaskedBatch {
        let shift = Stream::new(self.seed, SHIFT).step(step).uniform(0);
        let maskable: usize = texts.iter().map(|text| text.maskable().len()).sum();
        let mut batch = MaskedBatch::default();
        for (place, text) in texts.iter().enumerate().take(places.end).skip(places.start) {
            let stream = Stream::new(self.seed, MASKS).step(step).sample(text.sample.id);
            let uniforms: Vec<_> = text.maskable().map(|i| (i, stream.uniform(i as u32))).collect();
            let masks = self.masks(stratum(shift, place, texts.len()), &uniforms);
            batch.seen.push(&text.with_masks(&masks.at, shape.mask()), shape.positions, masks.t);
            let row = batch.targets.len();
            batch.targets.resize(row + shape.positions, -1);
            batch.weights.push(masks.weight / maskable as f64);
            masks.at.iter().for_each(|&i| batch.targets[row + i] = text.tokens[i]);
        }
        batch
    }

    /// The masks of a text at `stratum`, from the uniforms of its positions.
    pub(super) fn masks(&self, stratum: f64, uniforms: &[(usize, f64)]) -> Masks {
        match self.masking {
            Masking::Bernoulli => Masks::at_time(1.0 - stratum, self.schedule, uniforms),
            Masking::Count => Masks::by_count(count_of(uniforms.len(), stratum), self.schedule, uniforms),
        }
    }
}
