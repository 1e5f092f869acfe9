//! The two ceilings of the roofline, measured on the machine that is measured, again and again during the run.

use super::{Effort, Roof, Samples};
use engine::cuda::{Factor, Gpu, Product};
use engine::simd::{self, Isa, Kernel, Lanes, Real};
use engine::{Buffer, DType, Device, Result};
use rayon::prelude::*;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// How often one kind of work was timed, and how much work it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Ceiling {
    /// What was done, for people: `fused multiply-adds`, `triad`.
    pub name: &'static str,
    /// FLOPs or bytes of one pass.
    pub amount: f64,
    seconds: Vec<f64>,
}

impl Ceiling {
    fn new(name: &'static str, amount: f64) -> Self {
        Self { name, amount, seconds: Vec::new() }
    }

    fn add(&mut self, work: impl FnOnce()) {
        let start = Instant::now();
        work();
        self.push(start.elapsed().as_secs_f64());
    }

    fn push(&mut self, seconds: f64) {
        self.seconds.push(seconds.max(1e-9));
    }

    /// The times of the passes.
    ///
    /// # Panics
    /// If it was never measured.
    pub fn samples(&self) -> Samples {
        Samples::new(self.seconds.clone()).expect("a ceiling is measured before it is asked for")
    }

    /// The median rate of the passes from number `first` on.
    fn rate_since(&self, first: usize) -> f64 {
        let recent =
            Samples::new(self.seconds[first..].to_vec()).expect("a ceiling is measured before it is asked for");
        self.amount / recent.median()
    }

    /// FLOP/s or bytes/s: the median, and the rates that 20 % and 80 % of the passes did not exceed.
    pub fn rate(&self) -> [f64; 3] {
        let samples = self.samples();
        let [fast, slow] = samples.spread();
        [samples.median(), slow, fast].map(|seconds| self.amount / seconds)
    }
}

/// A place among the passes that measured the ceilings.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    flops: usize,
    memory: usize,
}

/// What limits every op on this device.
pub struct Ceilings {
    /// The peak rate of arithmetic in the float type that is measured.
    pub flops: Ceiling,
    /// Ways to move memory; the bandwidth is the best of their medians.
    pub memory: Vec<Ceiling>,
    rig: Rig,
    latest: Instant,
}

/// What the ceilings are measured with.
enum Rig {
    Cpu(Arrays),
    Gpu(Box<Slabs>),
}

impl Ceilings {
    /// Allocates what is needed, and measures for the first time.
    ///
    /// # Errors
    /// If a device has no room.
    pub fn new(device: &Device, dtype: DType, effort: &Effort) -> Result<Self> {
        let (flops, memory, rig) = match device {
            Device::Cpu => {
                let arrays = Arrays::new(effort.bytes);
                let bytes = arrays.bytes() as f64;
                // All three arrays are read, two of them written.
                let update = bytes / 3.0 * 5.0;
                let memory = vec![
                    Ceiling::new("read", bytes),
                    Ceiling::new("triad", bytes),
                    Ceiling::new("update in place", update),
                ];
                (Ceiling::new("fused multiply-adds in registers", 0.0), memory, Rig::Cpu(arrays))
            }
            Device::Cuda(gpu) => {
                let slabs = Slabs::new(gpu, dtype, effort)?;
                let memory = vec![Ceiling::new("copy", 2.0 * slabs.bytes as f64)];
                let amount = 2.0 * (slabs.side as f64).powi(3);
                (Ceiling::new("large square product", amount), memory, Rig::Gpu(Box::new(slabs)))
            }
        };
        let mut ceilings = Self { flops, memory, rig, latest: Instant::now() };
        ceilings.pass();
        // The first pass touches pages, wakes threads and lets libraries choose.
        ceilings.flops.seconds.clear();
        ceilings.memory.iter_mut().for_each(|c| c.seconds.clear());
        ceilings.measure();
        Ok(ceilings)
    }

    /// Measures both thoroughly, as before and after everything.
    pub fn measure(&mut self) {
        (0..3).for_each(|_| self.pass());
    }

    /// Measures what is quick to measure, and the rest if the latest time is a few seconds ago. Called between rows.
    pub fn refresh(&mut self) {
        if self.latest.elapsed().as_secs_f64() > 3.0 {
            self.pass();
        }
        (0..2).for_each(|_| self.pass_flops());
    }

    /// How many passes there have been.
    pub fn mark(&self) -> Mark {
        Mark { flops: self.flops.seconds.len(), memory: self.memory[0].seconds.len() }
    }

    /// The roof around what was measured since `mark`: medians of the passes since then and of the latest ones before. A
    /// machine whose speed changes during a run changes its roof along with its rows.
    pub fn roof_since(&self, mark: Mark) -> Roof {
        let bandwidth = self.memory.iter().map(|c| c.rate_since(mark.memory.saturating_sub(1))).fold(0.0, f64::max);
        Roof { peak: self.flops.rate_since(mark.flops.saturating_sub(2)), bandwidth }
    }

    /// The roof of the whole run.
    pub fn roof(&self) -> Roof {
        let bandwidth = self.memory.iter().map(|c| c.rate()[0]).fold(0.0, f64::max);
        Roof { peak: self.flops.rate()[0], bandwidth }
    }

    /// Leaves nothing of what ops work on in the caches.
    pub fn evict(&self) {
        match &self.rig {
            Rig::Cpu(arrays) => arrays.walk(),
            Rig::Gpu(slabs) => slabs.flush(),
        }
    }

    fn pass(&mut self) {
        self.pass_flops();
        let Self { memory, rig, .. } = self;
        match rig {
            Rig::Cpu(arrays) => {
                memory[0].add(|| arrays.read());
                memory[1].add(|| arrays.triad());
                memory[2].add(|| arrays.update());
            }
            Rig::Gpu(slabs) => memory[0].add(|| slabs.copy()),
        }
        self.latest = Instant::now();
    }

    fn pass_flops(&mut self) {
        match &self.rig {
            Rig::Cpu(_) => {
                let [flops, seconds] = super::peak::fma_burst(2_000_000);
                self.flops.push(seconds);
                self.flops.amount = flops;
            }
            Rig::Gpu(slabs) => self.flops.add(|| slabs.product()),
        }
    }
}

/// Three arrays, each larger than the last-level cache.
struct Arrays([Vec<f32>; 3]);

/// A thread's share at a time: small enough to balance, far too large to be prefetched by chance.
const PIECE: usize = 1 << 20;

struct Total<'a>(&'a [f32]);

impl Kernel for Total<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self) -> f32 {
        simd::sum::<I, f32>(self.0)
    }
}

/// a ← b + s·c.
struct Triad<'a>(&'a mut [f32], &'a [f32], &'a [f32]);

impl Kernel for Triad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        const N: usize = simd::LANES;
        let s = <f32 as Real>::Lanes::<I>::splat(3.0);
        let rows = self.0.as_chunks_mut::<N>().0.iter_mut();
        for ((a, b), c) in rows.zip(self.1.as_chunks::<N>().0).zip(self.2.as_chunks::<N>().0) {
            let c = <f32 as Real>::Lanes::<I>::load(c);
            c.mul_add(s, <f32 as Real>::Lanes::<I>::load(b)).store(a);
        }
    }
}

/// a ← ½a + b and c ← ½c + b: what is written was read before, so that no line is fetched for the sake of being written, as in
/// an optimiser's step.
struct Update<'a>(&'a mut [f32], &'a [f32], &'a mut [f32]);

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        const N: usize = simd::LANES;
        let s = <f32 as Real>::Lanes::<I>::splat(0.5);
        let rows = self.0.as_chunks_mut::<N>().0.iter_mut().zip(self.2.as_chunks_mut::<N>().0);
        for ((a, c), b) in rows.zip(self.1.as_chunks::<N>().0) {
            let b = <f32 as Real>::Lanes::<I>::load(b);
            for x in [a, c] {
                <f32 as Real>::Lanes::<I>::load(x).mul_add(s, b).store(x);
            }
        }
    }
}

impl Arrays {
    fn new(bytes: usize) -> Self {
        let len = (bytes / (3 * size_of::<f32>())).next_multiple_of(simd::LANES);
        Self([1.0, 2.0, 3.0].map(|x| vec![x; len]))
    }

    fn bytes(&self) -> usize {
        3 * self.0[0].len() * size_of::<f32>()
    }

    fn read(&self) {
        let sums = self.0.par_iter().flat_map(|a| a.par_chunks(PIECE)).map(|a| simd::dispatch(Total(a)));
        black_box(sums.sum::<f32>());
    }

    fn triad(&mut self) {
        let [a, b, c] = &mut self.0;
        let pieces = a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).zip(c.par_chunks(PIECE));
        pieces.for_each(|((a, b), c)| simd::dispatch(Triad(a, b, c)));
    }

    fn update(&mut self) {
        let [a, b, c] = &mut self.0;
        let pieces = a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).zip(c.par_chunks_mut(PIECE));
        pieces.for_each(|((a, b), c)| simd::dispatch(Update(a, b, c)));
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

/// More than any GPU's cache holds.
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

    fn flush(&self) {
        self.gpu.clear(self.halves[1].address(), self.bytes.min(FLUSH));
    }
}
