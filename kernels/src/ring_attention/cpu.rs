use crate::attention::scale;
use engine::parallel;
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};

/// One step of generation: the position of the token, and how many of the latest entries it sees.
#[derive(Clone, Copy)]
pub struct Shape {
    pub heads: usize,
    pub head_dim: usize,
    pub slots: usize,
    pub position: usize,
    pub seen: usize,
}

/// `qkv` [B, 1, 3d], `ring` [B, W, 2d] → `y` [B, 1, d].
pub fn forward<T: Real>(shape: Shape, qkv: &[T], ring: &[T], y: &mut [T]) {
    let Shape { heads, head_dim, slots, seen, .. } = shape;
    let d = heads * head_dim;
    parallel::chunks(y, head_dim, |at, y| {
        let (sample, head) = (at / heads, at % heads);
        let part = |i: usize| &qkv[sample * 3 * d + i * d + head * head_dim..][..head_dim];
        let ring = &ring[sample * slots * 2 * d..][..slots * 2 * d];
        parallel::scratch(seen + 1, |scores| {
            simd::dispatch(Head { shape, own: [part(0), part(1), part(2)], ring, head, y, scores });
        });
    });
}

/// One head of one sample: the token's own query, key and value, and the sample's `ring` [W, 2d].
struct Head<'a, T> {
    shape: Shape,
    own: [&'a [T]; 3],
    ring: &'a [T],
    head: usize,
    y: &'a mut [T],
    scores: &'a mut [T],
}

impl<T: Real> Kernel for Head<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { shape, own: [q, k, v], ring, head, y, scores } = self;
        let Shape { heads, head_dim, slots, position, seen } = shape;
        // Entry 0 is the oldest that is seen, the last one the token's own.
        let row = |entry: usize, values: usize| {
            let slot = (position - seen + entry) % slots;
            &ring[slot * 2 * heads * head_dim + (values * heads + head) * head_dim..][..head_dim]
        };
        let scale = scale::<T>(head_dim);
        for (entry, score) in scores.iter_mut().enumerate() {
            let k = if entry < seen { row(entry, 0) } else { k };
            *score = simd::dot::<I, T>(q, k) * scale;
        }
        let max = T::Lanes::<I>::splat(simd::max::<I, T>(scores));
        let (body, tail) = scores.as_chunks_mut::<LANES>();
        for scores in body {
            T::Lanes::<I>::load(scores).sub(max).exp().store(scores);
        }
        T::Lanes::<I>::load_partial(tail, T::NEG_INFINITY).sub(max).exp().store_partial(tail);
        let normaliser = T::ONE / simd::sum::<I, T>(scores);
        y.fill(T::ZERO);
        for (entry, &weight) in scores.iter().enumerate() {
            let v = if entry < seen { row(entry, 1) } else { v };
            simd::axpy::<I, T>(weight * normaliser, v, y);
        }
    }
}

/// Keys and values of `qkv` [B, 1, 3d] into `slot` of `ring` [B, W, 2d].
pub fn write<T: Copy>(slot: usize, d: usize, slots: usize, qkv: &[T], ring: &mut [T]) {
    for (ring, qkv) in ring.chunks_mut(slots * 2 * d).zip(qkv.chunks(3 * d)) {
        ring[slot * 2 * d..][..2 * d].copy_from_slice(&qkv[d..]);
    }
}
