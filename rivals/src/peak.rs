//! The processor's peak.

use engine::simd::fma_burst;

/// Steps of a burst: one to two milliseconds.
const STEPS: usize = 500_000;

/// FLOP/s of one burst on every thread of the pool.
pub fn rate() -> f64 {
    let [flops, seconds] = fma_burst(STEPS);
    flops / seconds
}
