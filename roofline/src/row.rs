//! One measured row: its times and derived numbers.

use crate::Cache;
use engine::Cost;
use serde::{Deserialize, Serialize};

/// The quantile `q` of some values, interpolated.
///
/// # Panics
/// If there is no value.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = q * (sorted.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] * (1.0 - part) + sorted[high] * part
}

/// The middle of some values.
///
/// # Panics
/// If there is none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Times of one piece of work in seconds per call, by pass. On a shared machine, times close together are correlated;
/// passes are less so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples(pub Vec<Vec<f64>>);

impl Samples {
    /// The middle time of every pass.
    pub fn medians(&self) -> Vec<f64> {
        self.0.iter().map(|pass| median(pass)).collect()
    }

    /// The middle time.
    pub fn median(&self) -> f64 {
        median(&self.0.concat())
    }

    /// The 20 % and the 80 % quantile.
    pub fn spread(&self) -> [f64; 2] {
        [0.2, 0.8].map(|q| quantile(&self.0.concat(), q))
    }
}

/// One thing to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What it belongs to, e.g. a module.
    pub group: String,
    /// Its name, e.g. op and case.
    pub case: String,
    /// The pass.
    pub pass: String,
    /// State of the caches.
    pub cache: Cache,
    /// FLOPs of one call.
    pub flops: u64,
    /// The fewest bytes that one call moves.
    pub bytes: u64,
    /// Tokens of one call, if it trains.
    pub tokens: Option<usize>,
}

impl Task {
    /// A task with hot caches that trains nothing.
    pub fn new(group: impl Into<String>, case: impl Into<String>, pass: impl Into<String>, cost: Cost) -> Self {
        let Cost { flops, bytes } = cost;
        let (group, case, pass) = (group.into(), case.into(), pass.into());
        Self { group, case, pass, cache: Cache::Hot, flops, bytes, tokens: None }
    }

    /// The identity of a row.
    pub fn key(&self) -> (&str, &str, Cache) {
        (&self.case, &self.pass, self.cache)
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
    /// Where the bytes come from, which sets the bandwidth of the roof: a level of the caches, or [`MEMORY`].
    pub level: String,
    /// Whether the outputs were compared with a reference before the work was timed.
    pub checked: bool,
}

/// The level of data that no cache holds.
pub const MEMORY: &str = "memory";

/// What follows from a row's times.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Numbers {
    /// The median time.
    pub seconds: f64,
    /// The 20 % quantile of the times.
    pub seconds_q20: f64,
    /// The 80 % quantile of the times.
    pub seconds_q80: f64,
    /// Number of samples.
    pub samples: usize,
    /// FLOPs per byte: the arithmetic intensity.
    pub intensity: f64,
    /// FLOP/s at the median time.
    pub flops_per_second: f64,
    /// Bytes/s at the median time.
    pub bytes_per_second: f64,
    /// FLOP/s as a share of the peak rate; for a whole step, the model FLOPs utilisation.
    pub of_peak: f64,
    /// Bytes/s as a share of the bandwidth.
    pub of_bandwidth: f64,
    /// The bound that sets the least time under the roof: `FLOPs` or `bytes`.
    pub floor: &'static str,
    /// The least time under the roof.
    pub floor_seconds: f64,
    /// The floor divided by the median time.
    pub reached: f64,
    /// Tokens per second, if the row trains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
}

impl Row {
    /// Numbers derived from the times.
    pub fn numbers(&self) -> Numbers {
        let Self { task, samples, roof, .. } = self;
        let (seconds, [seconds_q20, seconds_q80]) = (samples.median(), samples.spread());
        let (flops, bytes) = (task.flops as f64, task.bytes as f64);
        let [by_flops, by_bytes] = [flops / roof.peak, bytes / roof.bandwidth];
        let floor_seconds = by_flops.max(by_bytes);
        Numbers {
            seconds,
            seconds_q20,
            seconds_q80,
            samples: samples.0.iter().map(Vec::len).sum(),
            intensity: flops / bytes.max(1.0),
            flops_per_second: flops / seconds,
            bytes_per_second: bytes / seconds,
            of_peak: by_flops / seconds,
            of_bandwidth: by_bytes / seconds,
            floor: if by_flops > by_bytes { "FLOPs" } else { "bytes" },
            floor_seconds,
            reached: floor_seconds / seconds,
            tokens_per_second: task.tokens.map(|tokens| tokens as f64 / seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!([0.0, 0.5, 1.0].map(|q| quantile(&values, q)), [1.0, 3.0, 5.0]);
        let [low, high] = Samples(vec![values.to_vec()]).spread();
        assert!((low - 1.8).abs() < 1e-12 && (high - 4.2).abs() < 1e-12);
        let passes = Samples(vec![vec![9.0, 1.0, 2.0], vec![4.0, 3.0]]);
        assert_eq!((passes.median(), passes.medians()), (3.0, vec![2.0, 3.5]));
    }
}
