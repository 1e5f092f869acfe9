//! Whether the machine has the memory that a configuration needs: to fail with a word, before anything is begun.

use super::output::si;
use engine::{Device, Error, Result};
use ltm::config::{Config, Work};
use std::fs;

/// Compares what `work` needs at least with what is free, where the system tells. Of a GPU's memory only the weights' part is
/// looked at here: the plans ask for all of it at once and know exactly ([`Config::check_room`]).
///
/// # Errors
/// If it is not enough: what would be, and which settings lower it.
pub fn check(config: &Config, work: Work, device: &Device) -> Result<()> {
    let ([weights, activations], what) = (config.least_memory(work), format!("{work:?}").to_lowercase());
    let advice = config.advice(device, work);
    match device {
        Device::Cpu => compare(available("MemAvailable"), weights + activations, &what, "the machine", &advice),
        Device::Cuda(gpu) => compare(Some(gpu.free_bytes() as u64), weights, &what, gpu.name(), &advice),
    }
}

/// As [`check`], for planning: memory that is never written to costs nothing, but every single value must fit.
///
/// # Errors
/// As [`check`].
pub fn check_plan(config: &Config) -> Result<()> {
    let m = &config.model;
    let advice = format!("lower model.dim = {}, train.batch = {} or model.seq = {}", m.dim, config.train.batch, m.seq);
    compare(available("MemTotal"), config.largest_value(), "the largest single value", "the machine", &advice)
}

fn compare(there: Option<u64>, needed: u64, what: &str, place: &str, advice: &str) -> Result<()> {
    match there {
        Some(there) if needed > there => Err(Error::device(format!(
            "{what} needs at least {} of memory, {place} has {}: {advice}",
            si(needed as f64, "B"),
            si(there as f64, "B")
        ))),
        _ => Ok(()),
    }
}

/// Bytes that the system's table says, where there is one.
fn available(entry: &str) -> Option<u64> {
    read(&fs::read_to_string("/proc/meminfo").ok()?, entry)
}

/// Bytes that `entry` of /proc/meminfo says.
fn read(info: &str, entry: &str) -> Option<u64> {
    let rest = info.lines().find_map(|line| line.strip_prefix(entry)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_s_table_is_read() {
        let info = "MemTotal:       24684084 kB\nMemFree: 1 kB\nMemAvailable:   23975920 kB\n";
        assert_eq!(read(info, "MemAvailable"), Some(23_975_920 << 10));
        assert_eq!(read(info, "MemTotal"), Some(24_684_084 << 10));
        assert_eq!(read(info, "Mem"), None);
        assert_eq!(read("", "MemTotal"), None);
    }
}
