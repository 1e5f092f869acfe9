//! The processor's peak: independent chains of fused multiply-adds that never leave the registers.

use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use std::hint::black_box;
use std::time::Instant;

/// Steps of a burst: about half a millisecond.
const STEPS: usize = 250_000;

struct Chains;

impl Kernel for Chains {
    /// Number of FLOPs.
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self) -> f64 {
        // Enough chains to hide the latency, few enough for the registers.
        match <<f32 as Real>::Lanes<I> as Lanes<f32>>::REGISTERS {
            1 => chains::<I, 12>(),
            _ => chains::<I, 6>(),
        }
    }
}

#[inline(always)]
fn chains<I: Isa, const N: usize>() -> f64 {
    let x = <f32 as Real>::Lanes::<I>::splat(black_box(0.999));
    let mut sums = [x; N];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = sum.mul_add(x, x);
        }
    }
    for sum in sums {
        black_box(sum.sum());
    }
    (2 * N * LANES * STEPS) as f64
}

/// FLOP/s of one burst on every thread of the pool.
pub fn rate() -> f64 {
    let start = Instant::now();
    let flops: f64 = rayon::broadcast(|_| simd::dispatch(Chains)).into_iter().sum();
    flops / start.elapsed().as_secs_f64()
}
