//! Repeats work and times it, with a given effort.

use crate::Ceilings;
use crate::caches::levels;
use engine::cuda::Gpu;
use engine::{Device, Result};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The effort of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Passes over all rows, each with a share of every row's samples. Comparisons of two runs use passes.
    pub passes: usize,
    /// Seconds for the samples of a row in one pass, unless the least number of samples takes longer.
    pub seconds: f64,
    /// Fewest samples of a row in one pass.
    pub fewest: usize,
    /// Shortest sample in seconds: shorter work is repeated within a sample.
    pub sample: f64,
    /// Bytes moved to measure the bandwidth.
    pub bytes: usize,
    /// Rows and columns of the matrix product that measures a GPU's peak.
    pub product: usize,
}

/// Two runs then differ by more than chance ([`CHANCE`](crate::CHANCE)) if all passes of one are faster than all of the
/// other, except for two pairs. Five passes would allow no exception.
const PASSES: usize = 6;

impl Effort {
    /// The effort for reliable numbers on `device`. Memory for the bandwidth is four times the last-level cache, or 1
    /// GiB on a GPU. A GPU is not shared and inputs reach it slowly, so without a comparison one pass is enough.
    pub fn full(device: &Device) -> Self {
        match device {
            Device::Cpu(_) => {
                let bytes = (4 * last_level_cache()).clamp(256 << 20, 2 << 30);
                Self { passes: 1, seconds: 0.72, fewest: 6, sample: 5e-4, bytes, product: 0 }.in_passes()
            }
            Device::Cuda(_) => {
                Self { passes: 1, seconds: 0.48, fewest: 24, sample: 2e-3, bytes: 1 << 30, product: 8192 }
            }
        }
    }

    /// The same, with as many passes as a comparison of two runs needs.
    pub fn in_passes(self) -> Self {
        let passes = PASSES / self.passes;
        Self { passes: PASSES, seconds: self.seconds / passes as f64, fewest: self.fewest.div_ceil(passes), ..self }
    }

    /// The effort for a first look at a few rows on the CPU: a tenth of a second for each.
    pub fn quick() -> Self {
        let bytes = (4 * last_level_cache()).clamp(64 << 20, 256 << 20);
        Self { passes: PASSES, seconds: 0.015, fewest: 3, sample: 2e-4, bytes, product: 0 }
    }

    /// The least effort, for tests: neither times nor ceilings mean anything.
    pub fn least() -> Self {
        Self { passes: 2, seconds: 0.0, fewest: 1, sample: 0.0, bytes: 1 << 16, product: 16 }
    }
}

/// Bytes of the last level of the caches, or 32 MiB if the system reports none.
fn last_level_cache() -> usize {
    levels(rayon::current_num_threads()).last().map_or(32 << 20, |level| level.bytes)
}

/// The content of the caches when work begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// The data of the same work, run a moment ago.
    Hot,
    /// Other data.
    Cold,
}

/// Most samples of a row in all passes.
const MOST: usize = 240;

/// Most repeats in a sample, so that recording them is still quick.
const MOST_REPEATS: usize = 2000;

/// The seconds that `work` takes, by the clock; above 0.
pub fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64().max(1e-9)
}

/// Fewest samples of a row with cold caches in one pass: each is a single call, and the eviction before it takes most of
/// the time.
const FEWEST_COLD: usize = 5;

/// Takes samples until there are enough and the time has passed.
fn take(effort: &Effort, cache: Cache, mut sample: impl FnMut() -> f64) -> Vec<f64> {
    let start = Instant::now();
    let mut seconds = Vec::new();
    // The least effort asks for a single sample.
    let fewest =
        if cache == Cache::Cold && effort.seconds > 0.0 { FEWEST_COLD.max(effort.fewest) } else { effort.fewest };
    while seconds.len() < fewest
        || (start.elapsed().as_secs_f64() < effort.seconds && seconds.len() < MOST / effort.passes)
    {
        seconds.push(sample());
    }
    seconds
}

/// Times of `work`, which runs on `device` and reads nothing back, with caches in the given state.
///
/// # Errors
/// If the device has failed.
pub fn measure(
    device: &Device,
    ceilings: &Ceilings,
    effort: &Effort,
    cache: Cache,
    work: &mut dyn FnMut(),
) -> Result<Vec<f64>> {
    let seconds = match (device, cache) {
        (Device::Cpu(_), _) => {
            let repeats = if cache == Cache::Hot { warm_up(effort, &mut *work) } else { 1 };
            take(effort, cache, || {
                if cache == Cache::Cold {
                    ceilings.evict();
                }
                time(|| (0..repeats).for_each(|_| work())) / repeats as f64
            })
        }
        (Device::Cuda(gpu), Cache::Hot) => {
            let repeats = warm_up(effort, || {
                work();
                let _ = gpu.finish();
            });
            let mut recorded = record(&**gpu, repeats, work);
            take(effort, cache, || recorded() / repeats as f64)
        }
        (Device::Cuda(gpu), Cache::Cold) => {
            const REPEATS: usize = 20;
            let mut both = || {
                ceilings.evict();
                work();
            };
            let mut evict = || ceilings.evict();
            let mut with = record(&**gpu, REPEATS, &mut both);
            let mut without = record(&**gpu, REPEATS, &mut evict);
            take(effort, cache, || (with() - without()).max(1e-9) / REPEATS as f64)
        }
    };
    device.finish()?;
    Ok(seconds)
}

/// Runs `work` until caches, threads and clock rates have settled, and returns how many runs make a sample long enough
/// for the clock.
fn warm_up(effort: &Effort, mut work: impl FnMut()) -> usize {
    let start = Instant::now();
    let mut fastest = time(&mut work);
    while start.elapsed().as_secs_f64() < 0.25 * effort.seconds {
        fastest = fastest.min(time(&mut work));
    }
    ((effort.sample / fastest).ceil() as usize).clamp(1, MOST_REPEATS)
}

/// Records repeated work on a GPU and times the recording, so that launches do not count. If the GPU does not record,
/// they count.
fn record<'a>(gpu: &'a dyn Gpu, repeats: usize, work: &'a mut dyn FnMut()) -> impl FnMut() -> f64 + 'a {
    // First without recording, because libraries choose their algorithms then.
    work();
    // The device keeps a failure, and `measure` returns it.
    let _ = gpu.finish();
    let recorded = gpu.captures().then(|| {
        gpu.begin_capture();
        (0..repeats).for_each(|_| work());
        gpu.end_capture()
    });
    let mut run = move || {
        time(|| {
            match &recorded {
                Some(recorded) => recorded.launch(),
                None => (0..repeats).for_each(|_| work()),
            }
            let _ = gpu.finish();
        })
    };
    run();
    run
}
