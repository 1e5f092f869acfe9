//! The two ceilings of the roofline, measured repeatedly during the run.

use super::meter::time;
use super::row::{median, quantile};
use super::{Effort, Rate, Roof};
use engine::cuda::{Factor, Gpu, Product};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Level, Real};
use engine::{Buffer, DType, Device, Result};
use kernels::matmul::bf16;
use rayon::prelude::*;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// One kind of work: the amount per pass, and the seconds of the passes.
struct Ceiling {
    name: &'static str,
    /// FLOPs or bytes.
    amount: f64,
    seconds: Vec<f64>,
}

impl Ceiling {
    fn new(name: &'static str, amount: f64) -> Self {
        Self { name, amount, seconds: Vec::new() }
    }

    fn add(&mut self, work: impl FnOnce()) {
        self.seconds.push(time(work));
    }

    /// A pass of arithmetic: `burst` returns FLOPs and seconds for a number of steps.
    fn add_burst(&mut self, burst: fn(usize) -> [f64; 2]) {
        let [flops, seconds] = burst(2_000_000);
        self.amount = flops;
        self.seconds.push(seconds);
    }

    /// The median rate of the passes from number `first` on.
    fn rate_since(&self, first: usize) -> f64 {
        self.amount / median(&self.seconds[first..])
    }

    fn rate(&self) -> Rate {
        let rate = |q: f64| self.amount / quantile(&self.seconds, q);
        Rate { name: self.name.into(), median: rate(0.5), q20: rate(0.8), q80: rate(0.2) }
    }
}

const FMA: &str = "fused multiply-adds in registers";

/// The ceilings of every op on this device.
pub struct Ceilings {
    /// The peak rate of arithmetic in the measured float type.
    flops: Ceiling,
    /// The peak rate in f32 if that is another: the roof of all work that is not in the measured type.
    f32_peak: Option<Ceiling>,
    /// Ways to move memory; the bandwidth is the best of their medians.
    memory: Vec<Ceiling>,
    rig: Rig,
    latest: Instant,
}

/// The memory for measuring the ceilings.
enum Rig {
    Cpu(Arrays, fn(usize) -> [f64; 2]),
    Gpu(Box<Slabs>),
}

impl Ceilings {
    /// Allocates memory, and measures for the first time.
    ///
    /// # Errors
    /// If the device lacks the memory.
    pub fn new(device: &Device, dtype: DType, effort: &Effort) -> Result<Self> {
        let (flops, memory, rig) = match device {
            Device::Cpu(_) => {
                let arrays = Arrays::new(effort.bytes);
                let bytes = size_of_val(&arrays.0[0][..]) as f64;
                let memory = WAYS.map(|(_, name, touches)| Ceiling::new(name, touches * bytes)).into();
                // Without AMX the f32 peak is that of products in bf16, too.
                let rounds = device.rounds_products() && simd::level() == Level::Amx;
                let name = if rounds { "bf16 multiply-adds in L1" } else { FMA };
                (Ceiling::new(name, 0.0), memory, Rig::Cpu(arrays, if rounds { bf16_burst } else { fma_burst }))
            }
            Device::Cuda(gpu) => {
                let slabs = Slabs::new(gpu, dtype, effort)?;
                let memory = vec![Ceiling::new("copy", 2.0 * slabs.bytes as f64)];
                let amount = 2.0 * (slabs.side as f64).powi(3);
                (Ceiling::new("large square product", amount), memory, Rig::Gpu(Box::new(slabs)))
            }
        };
        let f32_peak = (flops.name != FMA).then(|| Ceiling::new(FMA, 0.0));
        let mut ceilings = Self { flops, f32_peak, memory, rig, latest: Instant::now() };
        ceilings.pass();
        // The first pass touches pages, wakes threads and lets libraries choose algorithms.
        ceilings.flops.seconds.clear();
        ceilings.f32_peak.iter_mut().for_each(|c| c.seconds.clear());
        ceilings.memory.iter_mut().for_each(|c| c.seconds.clear());
        ceilings.measure();
        Ok(ceilings)
    }

    /// Measures both thoroughly, as before and after everything.
    pub fn measure(&mut self) {
        (0..3).for_each(|_| self.pass());
    }

    /// Measures the quick ceilings, and the slow ones if the latest measurement is a few seconds old. Called between
    /// rows.
    pub fn refresh(&mut self) {
        if self.latest.elapsed().as_secs_f64() > 3.0 {
            self.pass();
        }
        (0..2).for_each(|_| self.pass_flops());
    }

    /// The peak rate, then the ways to move memory.
    pub fn rates(&self) -> Vec<Rate> {
        std::iter::once(&self.flops).chain(&self.memory).map(Ceiling::rate).collect()
    }

    /// The peak rate in f32, if that is another.
    pub fn f32_peak(&self) -> Option<Rate> {
        self.f32_peak.as_ref().map(Ceiling::rate)
    }

    /// Marks the latest passes of both ceilings, for [`roof_since`](Self::roof_since).
    pub fn mark(&self) -> [usize; 2] {
        [self.flops.seconds.len().saturating_sub(2), self.memory[0].seconds.len().saturating_sub(1)]
    }

    /// The roof for measurements since `mark`: medians of the passes since then and of the latest ones before. So if
    /// the machine's speed changes during a run, the roof changes with the rows.
    pub fn roof_since(&self, [flops, memory]: [usize; 2]) -> Roof {
        let bandwidth = self.memory.iter().map(|c| c.rate_since(memory)).fold(0.0, f64::max);
        Roof { peak: self.flops.rate_since(flops), bandwidth }
    }

    /// The roof of the whole run.
    pub fn roof(&self) -> Roof {
        self.roof_since([0, 0])
    }

    /// Evicts the ops' data from the caches.
    pub fn evict(&self) {
        match &self.rig {
            Rig::Cpu(arrays, _) => arrays.walk(),
            Rig::Gpu(slabs) => slabs.gpu.clear(slabs.halves[1].address(), slabs.bytes.min(FLUSH)),
        }
    }

    fn pass(&mut self) {
        self.pass_flops();
        let Self { memory, rig, f32_peak, .. } = self;
        if let Some(peak) = f32_peak {
            peak.add_burst(fma_burst);
        }
        match rig {
            Rig::Cpu(arrays, _) => memory.iter_mut().zip(WAYS).for_each(|(c, (way, ..))| c.add(|| arrays.pass(way))),
            Rig::Gpu(slabs) => memory[0].add(|| slabs.copy()),
        }
        self.latest = Instant::now();
    }

    fn pass_flops(&mut self) {
        match &self.rig {
            Rig::Cpu(_, burst) => self.flops.add_burst(*burst),
            Rig::Gpu(slabs) => self.flops.add(|| slabs.product()),
        }
    }
}

/// Runs chains of f32 multiply-adds that stay in the registers on every thread of the pool. Returns the FLOPs of all
/// threads and the seconds of the slowest. Each thread reads its own clock, because waking a thread can take as long as
/// a short burst.
pub fn fma_burst(steps: usize) -> [f64; 2] {
    burst(|| simd::dispatch(FmaChains(steps)))
}

/// As [`fma_burst`] for products that round their factors to bf16: of AMX if there is one, in about the same time.
pub fn bf16_burst(steps: usize) -> [f64; 2] {
    burst(|| bf16::burst(steps / 100).unwrap_or_else(|| simd::dispatch(FmaChains(steps))))
}

/// Runs `work` on every thread.
fn burst(work: impl Fn() -> f64 + Sync) -> [f64; 2] {
    let all = rayon::broadcast(|_| {
        let start = Instant::now();
        let flops = work();
        [flops, start.elapsed().as_secs_f64()]
    });
    all.into_iter().fold([0.0; 2], |[flops, slowest], [f, s]| [flops + f, slowest.max(s)])
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

/// A way to move the memory of three arrays a, b and c.
#[derive(Clone, Copy)]
enum Way {
    /// Everything is read.
    Read,
    /// a ← b + s·c.
    Triad,
    /// a ← ½a + b and c ← ½c + b: everything written was read before, as in an optimiser's step, so no extra cache
    /// lines are fetched.
    Update,
}

/// All ways, with their names and the number of array reads and writes.
const WAYS: [(Way, &str, f64); 3] =
    [(Way::Read, "read", 3.0), (Way::Triad, "triad", 3.0), (Way::Update, "update in place", 5.0)];

/// A piece of the arrays.
struct Piece<'a>(Way, &'a mut [f32], &'a [f32], &'a mut [f32]);

impl Kernel for Piece<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self) -> f32 {
        let Self(way, a, b, c) = self;
        if let Way::Read = way {
            return simd::sum::<I, f32>(a) + simd::sum::<I, f32>(b) + simd::sum::<I, f32>(c);
        }
        let rows =
            a.as_chunks_mut::<LANES>().0.iter_mut().zip(b.as_chunks::<LANES>().0).zip(c.as_chunks_mut::<LANES>().0);
        for ((a, b), c) in rows {
            let (b, old_c) = (<f32 as Real>::Lanes::<I>::load(b), <f32 as Real>::Lanes::<I>::load(c));
            if let Way::Triad = way {
                old_c.mul_add(<f32 as Real>::Lanes::<I>::splat(3.0), b).store(a);
            } else {
                let half = <f32 as Real>::Lanes::<I>::splat(0.5);
                <f32 as Real>::Lanes::<I>::load(a).mul_add(half, b).store(a);
                old_c.mul_add(half, b).store(c);
            }
        }
        0.0
    }
}

/// A thread's share at a time: small enough to balance the load, much larger than any prefetch.
const PIECE: usize = 1 << 20;

/// Three arrays, each larger than the last-level cache.
struct Arrays([Vec<f32>; 3]);

impl Arrays {
    fn new(bytes: usize) -> Self {
        let len = (bytes / (3 * size_of::<f32>())).next_multiple_of(LANES);
        Self([1.0, 2.0, 3.0].map(|x| vec![x; len]))
    }

    fn pass(&mut self, way: Way) {
        let [a, b, c] = &mut self.0;
        let pieces = a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).zip(c.par_chunks_mut(PIECE));
        black_box(pieces.map(|((a, b), c)| simd::dispatch(Piece(way, a, b, c))).sum::<f32>());
    }

    /// Every thread touches each cache line of its share of one array, so that its own caches are replaced along with the
    /// shared one.
    fn walk(&self) {
        rayon::broadcast(|thread| {
            let share = self.0[0].len().div_ceil(thread.num_threads());
            let mine = self.0[0].chunks(share).nth(thread.index()).unwrap_or_default();
            black_box(mine.iter().step_by(64 / size_of::<f32>()).fold(0.0f32, |sum, x| sum + x));
        });
    }
}

/// Memory of a GPU: two halves to copy between, and three square matrices.
struct Slabs {
    gpu: Arc<dyn Gpu>,
    halves: [Buffer; 2],
    bytes: usize,
    matrices: [Buffer; 3],
    side: usize,
}

/// Larger than any GPU's cache.
const FLUSH: usize = 256 << 20;

impl Slabs {
    fn new(gpu: &Arc<dyn Gpu>, dtype: DType, effort: &Effort) -> Result<Self> {
        let (bytes, side) = (effort.bytes / 2, effort.product);
        let device = Device::Cuda(gpu.clone());
        let memory = || Buffer::with_capacity_on(&device, bytes);
        // Zeros take less power than numbers, and a GPU at its limit of power multiplies them faster.
        let values: Vec<f64> = (0..side * side).map(|i| (i * 2_654_435_761 % 1021) as f64 / 1021.0 - 0.5).collect();
        let numbers = Buffer::from_f64(dtype, &[side, side], &values);
        let matrix = || numbers.to_device(&device);
        let (halves, matrices) = ([memory()?, memory()?], [matrix()?, matrix()?, matrix()?]);
        Ok(Self { gpu: gpu.clone(), halves, bytes, matrices, side })
    }

    fn copy(&self) {
        self.gpu.copy(self.halves[0].address(), self.halves[1].address(), self.bytes);
        // The device keeps a failure, and the next measurement returns it.
        let _ = self.gpu.finish();
    }

    fn product(&self) {
        let [a, b, out] = self.matrices.each_ref().map(Buffer::pointer);
        let (a, b) = (Factor::Plain(a), Factor::Transposed(b));
        let (rows, cols, inner) = (self.side, self.side, self.side);
        self.gpu.product(&Product { rows, cols, inner, a, b, c: None, out });
        let _ = self.gpu.finish();
    }
}
