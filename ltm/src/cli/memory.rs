//! Whether the machine has the memory that a configuration needs: to fail with a word, before anything is begun.

use super::output::si;
use engine::{Error, Result};
use ltm::config::{Config, Work};
use std::fs;

/// Compares what `work` needs at least with what is available, where the system tells.
///
/// # Errors
/// If it is not enough: what would be, and which settings lower it.
pub fn check(config: &Config, work: Work) -> Result<()> {
    let [weights, activations] = config.least_memory(work);
    let m = &config.model;
    let lower = match (weights > activations, work) {
        (true, _) => format!("model.dim = {} or model.layers = {}", m.dim, m.layers),
        (false, Work::Generation) => format!("model.seq = {}", m.seq),
        (false, _) => format!("train.batch = {} or model.seq = {}", config.train.batch, m.seq),
    };
    compare("MemAvailable", weights + activations, &format!("{work:?}").to_lowercase(), &lower)
}

/// As [`check`], for planning: memory that is never written to costs nothing, but every single value must fit.
///
/// # Errors
/// As [`check`].
pub fn check_plan(config: &Config) -> Result<()> {
    let m = &config.model;
    let lower = format!("model.dim = {}, train.batch = {} or model.seq = {}", m.dim, config.train.batch, m.seq);
    compare("MemTotal", config.largest_value(), "the largest single value", &lower)
}

fn compare(entry: &str, needed: u64, what: &str, lower: &str) -> Result<()> {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match read(&info, entry) {
        Some(there) if needed > there => Err(Error::new(format!(
            "{what} needs at least {} of memory, the machine has {}: lower {lower}",
            si(needed as f64, "B"),
            si(there as f64, "B")
        ))),
        _ => Ok(()),
    }
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
