//! The processor's peak rate of arithmetic.

use engine::simd::{Isa, Kernel, LANES, Lanes, Real, dispatch};
use std::hint::black_box;
use std::time::Instant;

/// Runs chains of f32 multiply-adds that stay in the registers on every thread of the pool. Returns the FLOPs of all threads
/// and the seconds of the slowest. Each reads its own clock, because waking a thread can take as long as a short burst.
pub fn fma_burst(steps: usize) -> [f64; 2] {
    let all = rayon::broadcast(|_| {
        let start = Instant::now();
        let flops = dispatch(FmaChains(steps));
        [flops, start.elapsed().as_secs_f64()]
    });
    all.into_iter().fold([0.0; 2], |[flops, slowest], [f, s]| [flops + f, slowest.max(s)])
}

/// Independent chains of f32 multiply-adds, this many steps each. There are enough of them to hide the latency of one, and few
/// enough to fit the registers.
struct FmaChains(usize);

impl Kernel for FmaChains {
    /// FLOPs done.
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self) -> f64 {
        match <<f32 as Real>::Lanes<I> as Lanes<f32>>::REGISTERS {
            1 => chains::<I, 12>(self.0),
            _ => chains::<I, 6>(self.0),
        }
    }
}

#[inline(always)]
fn chains<I: Isa, const N: usize>(steps: usize) -> f64 {
    let x = <f32 as Real>::Lanes::<I>::splat(black_box(0.999));
    let mut sums = [x; N];
    for _ in 0..steps {
        for i in 0..N {
            sums[i] = sums[i].mul_add(x, x);
        }
    }
    for i in 0..N {
        black_box(sums[i].sum());
    }
    (2 * N * LANES * steps) as f64
}
