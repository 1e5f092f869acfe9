use engine::Device;
use std::fs;

/// How much work a measurement is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Passes over all rows, a share of each row's samples in each: what two runs are told apart by.
    pub passes: usize,
    /// Seconds for the samples of a row in one pass, unless the fewest take longer.
    pub seconds: f64,
    /// Fewest samples of a row in one pass.
    pub fewest: usize,
    /// Shortest sample in seconds: shorter work is repeated within a sample.
    pub sample: f64,
    /// Bytes that are moved to measure the bandwidth.
    pub bytes: usize,
    /// Rows and columns of the product that measures a GPU's peak.
    pub product: usize,
}

/// Two runs then differ by more than chance ([`CHANCE`](super::CHANCE)) if all passes of one are faster than all of the other, or
/// all but two pairs: five passes would allow none.
const PASSES: usize = 6;

impl Effort {
    /// What gives trustworthy numbers on `device`: memory for the bandwidth is four times the last-level cache, or 1 GiB of
    /// a GPU's. A GPU is nobody else's meanwhile, and inputs reach it slowly: without a comparison one pass does.
    pub fn full(device: &Device) -> Self {
        match device {
            Device::Cpu => {
                let bytes = (4 * last_level_cache()).clamp(256 << 20, 2 << 30);
                Self { passes: 1, seconds: 0.72, fewest: 6, sample: 5e-4, bytes, product: 0 }.in_passes()
            }
            Device::Cuda(_) => {
                Self { passes: 1, seconds: 0.48, fewest: 24, sample: 2e-3, bytes: 1 << 30, product: 8192 }
            }
        }
    }

    /// The same in as many passes as it takes to compare two runs.
    pub fn in_passes(self) -> Self {
        let passes = PASSES / self.passes;
        Self { passes: PASSES, seconds: self.seconds / passes as f64, fewest: self.fewest.div_ceil(passes), ..self }
    }

    /// Just enough to see that everything runs and counts.
    pub fn least() -> Self {
        Self { passes: 2, seconds: 0.0, fewest: 1, sample: 0.0, bytes: 1 << 16, product: 16 }
    }
}

/// Bytes of the largest cache that the system tells of, 32 MiB where it tells of none.
pub fn last_level_cache() -> usize {
    let sizes = (0..8).filter_map(|index| {
        let text = fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok()?;
        text.trim().strip_suffix('K')?.parse::<usize>().ok()?.checked_mul(1024)
    });
    sizes.max().unwrap_or(32 << 20)
}
