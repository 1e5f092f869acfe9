use super::{Cache, Samples};
use engine::Cost;
use serde::{Deserialize, Serialize};

/// How files hold a [`Cost`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "Cost")]
struct CostFields {
    flops: u64,
    bytes: u64,
}

/// One thing to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The op's room, or [`STEPS`](super::STEPS).
    pub group: String,
    /// Op and case, or which step.
    pub case: String,
    /// The pass.
    pub pass: String,
    /// State of the caches.
    pub cache: Cache,
    /// FLOPs and least bytes of one call.
    #[serde(flatten, with = "CostFields")]
    pub cost: Cost,
    /// Tokens that one call learns from, if it learns.
    pub tokens: Option<usize>,
}

impl Task {
    /// What tells rows apart.
    pub fn key(&self) -> String {
        format!("{} | {} | {}", self.case, self.pass, self.cache.name())
    }
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What.
    #[serde(flatten)]
    pub task: Task,
    /// Seconds per call.
    #[serde(rename = "times")]
    pub samples: Samples,
    /// The roof as it was measured just before and after.
    #[serde(flatten)]
    pub roof: Roof,
}

/// Which of the two ceilings a floor stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// FLOPs over the peak rate.
    Flops,
    /// Bytes over the bandwidth.
    Bytes,
}

impl Limit {
    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flops => "FLOPs",
            Self::Bytes => "bytes",
        }
    }
}

/// The peak rate in FLOP/s and the bandwidth in bytes/s.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roof {
    /// FLOP/s.
    #[serde(rename = "peak_flops")]
    pub peak: f64,
    /// Bytes/s.
    pub bandwidth: f64,
}

impl Roof {
    /// The least time that `cost` takes under this roof, and what sets it.
    pub fn floor(&self, cost: Cost) -> (f64, Limit) {
        let (flops, bytes) = (cost.flops as f64 / self.peak, cost.bytes as f64 / self.bandwidth);
        if flops > bytes { (flops, Limit::Flops) } else { (bytes, Limit::Bytes) }
    }
}

impl Row {
    /// What tells rows apart.
    pub fn key(&self) -> String {
        self.task.key()
    }

    /// FLOP/s at the median time.
    pub fn flop_rate(&self) -> f64 {
        self.task.cost.flops as f64 / self.samples.median()
    }

    /// Bytes/s at the median time.
    pub fn byte_rate(&self) -> f64 {
        self.task.cost.bytes as f64 / self.samples.median()
    }

    /// FLOPs per byte: the arithmetic intensity.
    pub fn intensity(&self) -> f64 {
        self.task.cost.flops as f64 / (self.task.cost.bytes as f64).max(1.0)
    }

    /// Tokens per second.
    pub fn token_rate(&self) -> Option<f64> {
        self.task.tokens.map(|tokens| tokens as f64 / self.samples.median())
    }

    /// The least time that this can take, and what sets it.
    pub fn floor(&self) -> (f64, Limit) {
        self.roof.floor(self.task.cost)
    }

    /// The floor's part of the median time: above 1 where a cache served what memory would have had to.
    pub fn reached(&self) -> f64 {
        self.floor().0 / self.samples.median()
    }

    /// FLOPs per second as a part of the peak rate: of a whole step, the model FLOPs utilisation.
    pub fn of_peak(&self) -> f64 {
        self.flop_rate() / self.roof.peak
    }

    /// Bytes per second as a part of the bandwidth.
    pub fn of_bandwidth(&self) -> f64 {
        self.byte_rate() / self.roof.bandwidth
    }
}
