//! The peak rate of arithmetic: multiply-adds that never wait for memory.

use engine::simd::{self, Isa, Kernel, LANES, Lanes, Level, Real};
use std::hint::black_box;
use std::time::Instant;

/// Runs chains of f32 multiply-adds that stay in the registers on every thread of the pool. Returns the FLOPs of all
/// threads and the seconds of the slowest. Each thread reads its own clock, because waking a thread can take as long as
/// a short burst.
pub fn fma_burst(steps: usize) -> [f64; 2] {
    burst(|_| simd::dispatch(FmaChains(steps)))
}

/// As [`fma_burst`] for products that round their factors to bf16: of AMX if there is one, in about the same time.
pub fn bf16_burst(steps: usize) -> [f64; 2] {
    burst(|_| if simd::level() == Level::Amx { tiles(steps / 100) } else { simd::dispatch(FmaChains(steps)) })
}

/// Runs `work` on every thread of the pool, with the thread's number; it returns its amount. Returns the sum of all amounts,
/// and the seconds of the slowest.
pub(crate) fn burst(work: impl Fn(usize) -> f64 + Sync) -> [f64; 2] {
    let all = rayon::broadcast(|thread| {
        let start = Instant::now();
        let amount = work(thread.index());
        [amount, start.elapsed().as_secs_f64().max(1e-9)]
    });
    all.into_iter().fold([0.0; 2], |[sum, slowest], [amount, seconds]| [sum + amount, slowest.max(seconds)])
}

/// Independent chains of f32 multiply-adds, this many steps each. There are enough to hide the latency of one, and few
/// enough to fit into the registers.
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

/// Multiplies blocks of bf16 that stay in L1 by AMX, and returns the FLOPs.
#[cfg(target_arch = "x86_64")]
fn tiles(steps: usize) -> f64 {
    use engine::simd::SIDE;
    use engine::{Want, parallel};
    use half::bf16;

    const DEPTH: usize = 8;
    let amx = simd::Amx::begin();
    parallel::scratch((2 * DEPTH + 2) * SIDE * SIDE, |memory: &mut [bf16]| {
        memory.fill(bf16::from_f32(1e-3));
        let (factors, sums) = memory.split_at_mut(2 * DEPTH * SIDE * SIDE);
        let (a, b) = factors.as_chunks().0.split_at(DEPTH);
        let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
        for _ in 0..steps {
            amx.multiply(a, b, Want::Add, &mut sums.as_chunks_mut().0.as_chunks_mut().0[0]);
        }
        (2 * DEPTH * SIDE.pow(3) * steps) as f64
    })
}

/// Only x86 has AMX.
#[cfg(not(target_arch = "x86_64"))]
fn tiles(_steps: usize) -> f64 {
    unreachable!("no level of this processor is AMX")
}
