//! The processor's peak.

use engine::simd::{self, FmaChains};
use std::time::Instant;

/// Steps of a burst: about half a millisecond.
const STEPS: usize = 250_000;

/// FLOP/s of one burst on every thread of the pool.
pub fn rate() -> f64 {
    let start = Instant::now();
    let flops: f64 = rayon::broadcast(|_| simd::dispatch(FmaChains(STEPS))).into_iter().sum();
    flops / start.elapsed().as_secs_f64()
}
