//! The sizes of the caches, from the system.

use std::fs;

/// One level of the caches of the threads in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// `L1`, `L2` or `L3`.
    pub name: String,
    /// Bytes that fit, in all caches of this level together.
    pub bytes: usize,
    /// Bytes with which its bandwidth is measured: half of what fits, and at most eight times the level before, which is
    /// enough to leave that level.
    pub measured: usize,
}

/// The data caches of `threads` threads, the smallest first. A level that is not twice as large as the one before adds no
/// roof. Empty if the system reports none.
pub fn levels(threads: usize) -> Vec<Level> {
    levels_in("/sys/devices/system/cpu/cpu0/cache", threads)
}

fn levels_in(folder: &str, threads: usize) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::new();
    for index in 0..8 {
        let read = |name: &str| fs::read_to_string(format!("{folder}/index{index}/{name}")).ok();
        let level = || {
            let kind = read("type")?;
            let kib: usize = read("size")?.trim().strip_suffix('K')?.parse().ok()?;
            let sharing = read("shared_cpu_list").map_or(1, |list| count(list.trim())).max(1);
            let bytes = (kib << 10) * threads.div_ceil(sharing);
            (kind.trim() != "Instruction").then(|| Some((format!("L{}", read("level")?.trim()), bytes)))?
        };
        let before = levels.last().map_or(0, |level| level.bytes);
        match level() {
            Some((name, bytes)) if bytes >= 2 * before.max(1) => {
                let most = if before == 0 { usize::MAX } else { 8 * before };
                levels.push(Level { name, bytes, measured: (bytes / 2).min(most) });
            }
            _ => {}
        }
    }
    levels
}

/// The number of processors in a list such as `0-3,8`.
fn count(list: &str) -> usize {
    let length = |part: &str| match part.split_once('-') {
        Some((first, last)) => Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1),
        None => part.parse::<usize>().ok().map(|_| 1),
    };
    list.split(',').filter_map(length).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_counted() {
        assert_eq!(["0", "0-1", "0-3,8", "0,4-5", ""].map(count), [1, 2, 5, 3, 0]);
    }

    #[test]
    fn caches_of_all_threads_count() {
        let folder = std::env::temp_dir().join(format!("roofline-caches-{}", std::process::id()));
        let files = [
            ("1", "Data", "32K", "0"),
            ("1", "Instruction", "32K", "0"),
            ("2", "Unified", "512K", "0"),
            ("3", "Unified", "8192K", "0-3"),
        ];
        for (index, (level, kind, size, list)) in files.into_iter().enumerate() {
            let place = folder.join(format!("index{index}"));
            fs::create_dir_all(&place).unwrap();
            for (name, text) in [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", list)] {
                fs::write(place.join(name), format!("{text}\n")).unwrap();
            }
        }
        let read = |threads| {
            let levels = levels_in(folder.to_str().unwrap(), threads);
            levels.into_iter().map(|l| (l.name, l.bytes >> 10, l.measured >> 10)).collect::<Vec<_>>()
        };
        let [l1, l2, l3] = ["L1", "L2", "L3"].map(String::from);
        let two = [(l1.clone(), 64, 32), (l2.clone(), 1024, 512), (l3.clone(), 8192, 4096)];
        assert_eq!(read(2), two);
        // Six threads have two of the third level's caches.
        assert_eq!(read(6)[2], (l3, 16384, 8192));
        assert_eq!(read(1)[1], (l2, 512, 256));
        assert_eq!(read(1)[0], (l1, 32, 16));
        fs::remove_dir_all(&folder).unwrap();
    }
}
