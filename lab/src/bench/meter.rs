//! Repeats work and takes the time.

use super::{Ceilings, Effort, Samples};
use engine::cuda::Gpu;
use engine::{Device, Result};
use std::time::Instant;

/// What the caches hold when work begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// What the same work left there a moment ago.
    Hot,
    /// Other memory.
    Cold,
}

impl Cache {
    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        }
    }
}

/// Most samples of a row in all passes.
const MOST: usize = 240;

/// Most repeats in a sample: a recording of that many is still quick to make.
const MOST_REPEATS: usize = 2000;

fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64().max(1e-9)
}

/// Takes samples until there are enough and the time is up.
fn take(effort: &Effort, mut sample: impl FnMut() -> f64) -> Result<Samples> {
    let start = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < effort.fewest
        || (start.elapsed().as_secs_f64() < effort.seconds && seconds.len() < MOST / effort.passes)
    {
        seconds.push(sample());
    }
    Samples::new(seconds)
}

/// Times `work`, which runs on `device` and reads nothing back, with the caches in the given state.
///
/// # Errors
/// None that a clock can cause.
pub fn measure(
    device: &Device,
    ceilings: &Ceilings,
    effort: &Effort,
    cache: Cache,
    work: &mut dyn FnMut(),
) -> Result<Samples> {
    match (device, cache) {
        (Device::Cpu, Cache::Hot) => {
            let repeats = warm_up(effort, &mut *work);
            take(effort, || time(|| (0..repeats).for_each(|_| work())) / repeats as f64)
        }
        (Device::Cpu, Cache::Cold) => take(effort, || {
            ceilings.evict();
            time(&mut *work)
        }),
        (Device::Cuda(gpu), Cache::Hot) => {
            let repeats = warm_up(effort, || {
                work();
                gpu.finish();
            });
            let recorded = Recorded::new(&**gpu, repeats, &mut *work);
            take(effort, || recorded.time() / repeats as f64)
        }
        (Device::Cuda(gpu), Cache::Cold) => {
            const REPEATS: usize = 20;
            let with = Recorded::new(&**gpu, REPEATS, &mut || {
                ceilings.evict();
                work();
            });
            let without = Recorded::new(&**gpu, REPEATS, &mut || ceilings.evict());
            take(effort, || (with.time() - without.time()).max(1e-9) / REPEATS as f64)
        }
    }
}

/// Runs `work` until caches, threads and clock rates have settled, and says how many runs make a sample long enough for
/// the clock.
fn warm_up(effort: &Effort, mut work: impl FnMut()) -> usize {
    let start = Instant::now();
    let mut fastest = time(&mut work);
    while start.elapsed().as_secs_f64() < 0.25 * effort.seconds {
        fastest = fastest.min(time(&mut work));
    }
    ((effort.sample / fastest).ceil() as usize).clamp(1, MOST_REPEATS)
}

/// Work as a GPU has recorded it, so that what is timed is the device and not the launching.
struct Recorded<'a> {
    gpu: &'a dyn Gpu,
    work: Box<dyn engine::cuda::Captured>,
}

impl<'a> Recorded<'a> {
    fn new(gpu: &'a dyn Gpu, repeats: usize, work: &mut dyn FnMut()) -> Self {
        // Outside of a recording first: libraries choose their algorithms then.
        work();
        gpu.finish();
        gpu.begin_capture();
        (0..repeats).for_each(|_| work());
        let recorded = Self { gpu, work: gpu.end_capture() };
        recorded.time();
        recorded
    }

    fn time(&self) -> f64 {
        time(|| {
            self.work.launch();
            self.gpu.finish();
        })
    }
}
