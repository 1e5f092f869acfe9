//! The ceilings of the roofline, measured repeatedly during the run.

use crate::caches::{Level, levels};
use crate::memory::{Arrays, Nest, WAYS};
use crate::meter::time;
use crate::peak::{bf16_burst, fma_burst};
use crate::row::{median, quantile};
use crate::{Cache, CacheRate, Effort, MEMORY, Rate, Roof};
use engine::cuda::{Factor, Gpu, Product};
use engine::simd;
use engine::{Buffer, DType, Device, Result};
use std::sync::Arc;
use std::time::Instant;

/// One kind of work: the amount per pass, and the seconds of the passes.
struct Ceiling {
    name: String,
    /// FLOPs or bytes.
    amount: f64,
    seconds: Vec<f64>,
}

impl Ceiling {
    fn new(name: impl Into<String>, amount: f64) -> Self {
        Self { name: name.into(), amount, seconds: Vec::new() }
    }

    fn add(&mut self, work: impl FnOnce()) {
        self.seconds.push(time(work));
    }

    /// A pass that measured its amount and seconds itself.
    fn add_burst(&mut self, [amount, seconds]: [f64; 2]) {
        self.amount = amount;
        self.seconds.push(seconds);
    }

    /// The median rate of the passes from number `first` on.
    fn rate_since(&self, first: usize) -> f64 {
        self.amount / median(&self.seconds[first..])
    }

    fn rate(&self) -> Rate {
        let rate = |q: f64| self.amount / quantile(&self.seconds, q);
        Rate { name: self.name.clone(), median: rate(0.5), q20: rate(0.8), q80: rate(0.2), best: rate(0.0) }
    }
}

/// The best of several ways to move memory, from these passes on.
fn best_since(ways: &[Ceiling], first: usize) -> f64 {
    ways.iter().map(|way| way.rate_since(first)).fold(0.0, f64::max)
}

/// One level of the caches, its arrays and the ways to move them.
struct CacheCeiling {
    level: Level,
    nest: Nest,
    ways: Vec<Ceiling>,
}

/// Arithmetic of one pass.
const STEPS: usize = 2_000_000;

/// Places in the lists of passes: of arithmetic, memory and caches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark([usize; 3]);

const FMA: &str = "fused multiply-adds in registers";

/// The ceilings of all work on this device.
pub struct Ceilings {
    /// The peak rate of arithmetic in the measured float type.
    flops: Ceiling,
    /// The peak rate in f32 if that is another: the roof of all work that is not in the measured type.
    f32_peak: Option<Ceiling>,
    /// Ways to move memory; the bandwidth is the best of their medians.
    memory: Vec<Ceiling>,
    /// The caches of a CPU, the smallest first.
    caches: Vec<CacheCeiling>,
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
                let bytes = arrays.bytes();
                let memory = WAYS.map(|(_, name, touches)| Ceiling::new(name, touches * bytes)).into();
                // Without AMX the f32 peak is that of products in bf16, too.
                let rounds = device.rounds_products() && simd::level() == simd::Level::Amx;
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
        let f32_peak = (matches!(rig, Rig::Cpu(..)) && flops.name != FMA).then(|| Ceiling::new(FMA, 0.0));
        let cache = |level: Level| CacheCeiling {
            nest: Nest::new(&level),
            ways: WAYS.map(|(_, name, _)| Ceiling::new(name, 0.0)).into(),
            level,
        };
        let levels = if matches!(device, Device::Cpu(_)) { levels(rayon::current_num_threads()) } else { Vec::new() };
        let caches = levels.into_iter().map(cache).collect();
        let mut ceilings = Self { flops, f32_peak, memory, caches, rig, latest: Instant::now() };
        ceilings.pass();
        // The first pass touches pages, wakes threads and lets libraries choose algorithms.
        let Self { flops, f32_peak, memory, caches, .. } = &mut ceilings;
        let caches = caches.iter_mut().flat_map(|cache| &mut cache.ways);
        let all = std::iter::once(flops).chain(f32_peak).chain(memory).chain(caches);
        all.for_each(|ceiling| ceiling.seconds.clear());
        ceilings.measure();
        Ok(ceilings)
    }

    /// Measures all of them thoroughly, as before and after everything.
    pub fn measure(&mut self) {
        (0..3).for_each(|_| self.pass());
    }

    /// Measures the quick ceilings, and the slow ones if the latest measurement is a few seconds old. Called between
    /// rows.
    pub fn refresh(&mut self) {
        if self.latest.elapsed().as_secs_f64() > 3.0 {
            self.pass();
        } else {
            self.pass_caches();
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

    /// The caches of a CPU with the rates of the best way to move what is in them, the smallest first.
    pub fn caches(&self) -> Vec<CacheRate> {
        let best = |ways: &[Ceiling]| ways.iter().map(Ceiling::rate).max_by(|a, b| a.median.total_cmp(&b.median));
        let caches = self.caches.iter().filter_map(|cache| {
            let Level { name, bytes, .. } = cache.level.clone();
            Some(CacheRate { level: name, bytes, rate: best(&cache.ways)? })
        });
        caches.collect()
    }

    /// Marks the latest passes of all ceilings, for [`roof_since`](Self::roof_since).
    pub fn mark(&self) -> Mark {
        let latest = |ceiling: &Ceiling, count: usize| ceiling.seconds.len().saturating_sub(count);
        let caches = self.caches.first().map_or(0, |cache| latest(&cache.ways[0], 1));
        Mark([latest(&self.flops, 2), latest(&self.memory[0], 1), caches])
    }

    /// The cache from which work with hot inputs of so many bytes is served, or memory.
    fn serving(&self, cache: Cache, bytes: u64) -> Option<&CacheCeiling> {
        self.caches.iter().find(|known| cache == Cache::Hot && bytes <= known.level.bytes as u64)
    }

    /// The level that serves work of so many bytes: that of the smallest cache into which they fit if they are hot.
    pub fn level(&self, cache: Cache, bytes: u64) -> String {
        self.serving(cache, bytes).map_or_else(|| MEMORY.into(), |known| known.level.name.clone())
    }

    /// The roof of work of so many bytes for measurements since `mark`: medians of the passes since then and of the
    /// latest ones before. So if the machine's speed changes during a run, the roof changes with the rows.
    pub fn roof_since(&self, Mark([flops, memory, caches]): Mark, cache: Cache, bytes: u64) -> Roof {
        let bandwidth = match self.serving(cache, bytes) {
            Some(known) => best_since(&known.ways, caches),
            None => best_since(&self.memory, memory),
        };
        Roof { peak: self.flops.rate_since(flops), bandwidth }
    }

    /// The roof of the whole run, for work in memory.
    pub fn roof(&self) -> Roof {
        self.roof_since(Mark::default(), Cache::Cold, 0)
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
        self.pass_caches();
        let Self { memory, rig, f32_peak, .. } = self;
        if let Some(peak) = f32_peak {
            peak.add_burst(fma_burst(STEPS));
        }
        match rig {
            Rig::Cpu(arrays, _) => memory.iter_mut().zip(WAYS).for_each(|(c, (way, ..))| c.add(|| arrays.pass(way))),
            Rig::Gpu(slabs) => memory[0].add(|| slabs.copy()),
        }
        self.latest = Instant::now();
    }

    fn pass_flops(&mut self) {
        match &self.rig {
            Rig::Cpu(_, burst) => self.flops.add_burst(burst(STEPS)),
            Rig::Gpu(slabs) => self.flops.add(|| slabs.product()),
        }
    }

    fn pass_caches(&mut self) {
        for CacheCeiling { nest, ways, .. } in &mut self.caches {
            for (ceiling, (way, _, touches)) in ways.iter_mut().zip(WAYS) {
                ceiling.add_burst(nest.pass(way, touches));
            }
        }
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
        self.gpu.product(&Product { count: 1, shared: [false; 2], rows, cols, inner, a, b, c: None, out });
        let _ = self.gpu.finish();
    }
}
