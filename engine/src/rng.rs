//! Counter-based noise: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A number depends only on its purpose (seed, step, sample, site, element), not on the thread that draws it, the batch
//! of the sample, or earlier draws. So every run can be resumed, and CPU and CUDA use the same noise. Normals come from
//! Box–Muller in f64, with polynomials of fused multiply-adds, so that the bits do not depend on a libm. Everything is
//! inlined, so that a kernel under [`simd::dispatch`](crate::simd::dispatch) uses the processor's multiply-add.

/// Ten rounds of Philox 4x32: a bijection of the counter for every key.
#[inline(always)]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    philox_each(counter.map(|word| [word]), key).map(|[word]| word)
}

/// [`philox`] of N counters side by side, so that it can use vector instructions: word `k` of counter `i` is `[k][i]`.
#[inline(always)]
pub fn philox_each<const N: usize>(counter: [[u32; N]; 4], mut key: [u32; 2]) -> [[u32; N]; 4] {
    // Each word is the lower half of 64 bits, because the product of vectors reads only that half.
    let mut wide = [[0u64; N]; 4];
    for word in 0..4 {
        for i in 0..N {
            wide[word][i] = u64::from(counter[word][i]);
        }
    }
    for _ in 0..10 {
        for i in 0..N {
            let p0 = (wide[0][i] & 0xFFFF_FFFF) * 0xD251_1F53;
            let p1 = (wide[2][i] & 0xFFFF_FFFF) * 0xCD9E_8D57;
            wide[0][i] = p1 >> 32 ^ wide[1][i] ^ u64::from(key[0]);
            wide[1][i] = p1;
            wide[2][i] = p0 >> 32 ^ wide[3][i] ^ u64::from(key[1]);
            wide[3][i] = p0;
        }
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    let mut words = [[0; N]; 4];
    for word in 0..4 {
        for i in 0..N {
            words[word][i] = wide[word][i] as u32;
        }
    }
    words
}

/// The purpose of a stream of random numbers. Streams that differ in any field are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The run's seed.
    pub seed: u64,
    /// Where in the program the numbers are used, e.g. a parameter's index.
    pub site: u32,
    /// The sample's identity, not its place in the batch.
    pub sample: u32,
    /// Number of the step, epoch or draw.
    pub step: u32,
}

impl Stream {
    /// A stream for `site` under `seed`, with sample and step zero.
    pub const fn new(seed: u64, site: u32) -> Self {
        Self { seed, site, sample: 0, step: 0 }
    }

    /// The same stream for another sample.
    #[must_use]
    pub const fn sample(mut self, sample: u32) -> Self {
        self.sample = sample;
        self
    }

    /// The same stream for another step.
    #[must_use]
    pub const fn step(mut self, step: u32) -> Self {
        self.step = step;
        self
    }

    /// The `block`-th four random words.
    #[inline(always)]
    pub fn words(&self, block: u32) -> [u32; 4] {
        philox([block, self.site, self.sample, self.step], self.key())
    }

    /// The four words of N blocks from `first` on, in the order of [`philox_each`].
    #[inline(always)]
    pub fn words_each<const N: usize>(&self, first: u32) -> [[u32; N]; 4] {
        let mut counter = [[0; N], [self.site; N], [self.sample; N], [self.step; N]];
        for i in 0..N {
            counter[0][i] = first.wrapping_add(i as u32);
        }
        philox_each(counter, self.key())
    }

    #[inline(always)]
    fn key(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    /// The `index`-th uniform number in [0, 1), with 53 random bits.
    pub fn uniform(&self, index: u32) -> f64 {
        let w = self.words(index);
        ((u64::from(w[0]) << 21) ^ (u64::from(w[1]) >> 11)) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// The `index`-th integer in `0..n` (multiply-shift on 64 bits; bias below n/2⁶⁴).
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn below(&self, index: u32, n: usize) -> usize {
        assert!(n > 0, "the range 0..0 has no integer");
        let w = self.words(index);
        let x = (u64::from(w[0]) << 32) | u64::from(w[1]);
        ((u128::from(x) * n as u128) >> 64) as usize
    }

    /// The `index`-th standard normal number. Elements 2j and 2j+1 share a Box–Muller pair, pairs share a Philox block by two.
    #[inline(always)]
    pub fn normal(&self, index: u32) -> f64 {
        let w = self.words(index / 4);
        let pair = (index % 4 / 2) as usize;
        let (a, b) = box_muller(w[2 * pair], w[2 * pair + 1]);
        if index.is_multiple_of(2) { a } else { b }
    }

    /// Fills `out[i]` with normal number `first + i`, rounded by `cast`.
    #[inline(always)]
    pub fn fill_normal<T>(&self, first: u32, out: &mut [T], cast: impl Fn(f64) -> T) {
        // First the elements before the next whole block of four.
        let head = out.len().min(first.wrapping_neg() as usize % 4);
        let (head, body) = out.split_at_mut(head);
        let block = first.div_ceil(4);
        for (o, i) in head.iter_mut().zip(first..) {
            *o = cast(self.normal(i));
        }
        for (four, block) in body.chunks_mut(4).zip(block..) {
            let w = self.words(block);
            let (a, b) = box_muller(w[0], w[1]);
            let (c, d) = box_muller(w[2], w[3]);
            for (o, x) in four.iter_mut().zip([a, b, c, d]) {
                *o = cast(x);
            }
        }
    }

    /// A permutation of `0..n` (Fisher–Yates).
    pub fn permutation(&self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u32, i + 1));
        }
        order
    }
}

/// Two independent standard normals from two random words.
#[inline(always)]
pub fn box_muller(u: u32, v: u32) -> (f64, f64) {
    let radius = (-2.0 * ln_unit(u)).sqrt();
    let (sin, cos) = sin_cos_turn(v);
    (radius * cos, radius * sin)
}

/// ln((u + ½) / 2³²).
#[inline(always)]
fn ln_unit(u: u32) -> f64 {
    ln((f64::from(u) + 0.5) * (1.0 / 4_294_967_296.0))
}

/// ln x of a positive normal number, with the same bits everywhere: the exponent is split off, the mantissa m goes through the
/// series of 2·artanh(s), s = (m−1)/(m+1), |s| ≤ 0.172. Relative error below 1e-15. Other numbers give no meaningful result.
#[inline(always)]
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) as i64 - 1023) as f64;
    let mut m = f64::from_bits((bits & 0x000F_FFFF_FFFF_FFFF) | 0x3FF0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1.0;
    }
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let mut series = 1.0 / 19.0;
    for odd in [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = f64::mul_add(series, s2, 1.0 / odd);
    }
    exponent.mul_add(std::f64::consts::LN_2, 2.0 * s * series)
}

/// (sin 2πt, cos 2πt) for t = (v + ½)/2³²: the octant from the top three bits, Taylor series within ±π/8 of its middle.
#[inline(always)]
fn sin_cos_turn(v: u32) -> (f64, f64) {
    let octant = v >> 29;
    // Offset from the octant's middle, in turns of at most 1/16.
    let t = (f64::from(v & 0x1FFF_FFFF) + 0.5) * (1.0 / 4_294_967_296.0) - 0.0625;
    let x = t * std::f64::consts::TAU;
    let x2 = x * x;
    let (mut s, mut c) = (1.0, 1.0);
    for k in [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0f64] {
        s = f64::mul_add(-x2 / (2.0 * k * (2.0 * k + 1.0)), s, 1.0);
        c = f64::mul_add(-x2 / ((2.0 * k - 1.0) * 2.0 * k), c, 1.0);
    }
    s *= x;
    // Middle of octant j is at (2j+1)·π/8.
    const COS: f64 = 0.923_879_532_511_286_7;
    const SIN: f64 = 0.382_683_432_365_089_8;
    const MIDDLES: [(f64, f64); 8] =
        [(SIN, COS), (COS, SIN), (COS, -SIN), (SIN, -COS), (-SIN, -COS), (-COS, -SIN), (-COS, SIN), (-SIN, COS)];
    let (sm, cm) = MIDDLES[octant as usize];
    (f64::mul_add(sm, c, cm * s), f64::mul_add(cm, c, -(sm * s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' Random123 distribution (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn words_side_by_side_are_those_of_single_blocks() {
        let stream = Stream::new(0x0123_4567_89ab_cdef, 3).sample(5).step(9);
        for first in [0, 7, u32::MAX - 2] {
            let each = stream.words_each::<5>(first);
            for i in 0..5 {
                assert_eq!(each.map(|words| words[i]), stream.words(first.wrapping_add(i as u32)));
            }
        }
    }

    #[test]
    fn elementary_functions_match_libm() {
        for i in 0..20_000u32 {
            let u = i.wrapping_mul(214_748).wrapping_add(i);
            let x = (f64::from(u) + 0.5) / 4_294_967_296.0;
            assert!((ln_unit(u) - x.ln()).abs() <= 4e-15 * x.ln().abs().max(1e-3), "ln {x}");
            let (s, c) = sin_cos_turn(u);
            let angle = x * std::f64::consts::TAU;
            assert!((s - angle.sin()).abs() < 4e-15 && (c - angle.cos()).abs() < 4e-15, "turn {x}");
        }
    }

    #[test]
    fn normals_have_the_right_moments_and_do_not_depend_on_how_they_are_drawn() {
        let stream = Stream::new(7, 3).sample(5).step(9);
        let mut all = vec![0.0; 40_001];
        stream.fill_normal(0, &mut all, |x| x);
        assert!((0..40_001).step_by(97).all(|i| all[i] == stream.normal(i as u32)));
        for (first, len) in [(0, 9), (1, 2), (5, 3), (7, 20), (4, 4), (40_000, 1)] {
            let mut part = vec![0.0; len];
            stream.fill_normal(first as u32, &mut part, |x| x);
            assert_eq!(part, all[first..first + len]);
        }
        let n = all.len() as f64;
        let mean = all.iter().sum::<f64>() / n;
        let var = all.iter().map(|x| x * x).sum::<f64>() / n;
        let fourth = all.iter().map(|x| x.powi(4)).sum::<f64>() / n;
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.03 && (fourth - 3.0).abs() < 0.2, "{mean} {var} {fourth}");
        assert!([stream.sample(6), stream.step(10)].iter().all(|other| other.normal(0) != all[0]));
    }

    #[test]
    fn integers_and_permutations_cover_their_range() {
        let stream = Stream::new(1, 2);
        let mut seen = [0; 7];
        (0..7_000).for_each(|i| seen[stream.below(i, 7)] += 1);
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        let mut p = stream.permutation(1000);
        assert_ne!(p[..5], [0, 1, 2, 3, 4]);
        p.sort_unstable();
        assert!(p.iter().enumerate().all(|(i, &x)| i as u32 == x));
    }
}
