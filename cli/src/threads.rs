//! The one pool of threads that all numerics run on.

use super::output::note;
use engine::{Error, Result};

/// Starts the pool with `count` threads (0: one per core) and runs `work` on it.
///
/// # Errors
/// Those of `work`, or of the system when it cannot start threads.
pub fn inside<T: Send>(count: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let cores = std::thread::available_parallelism().map_or(count, usize::from);
    if count > cores {
        note(format_args!("note: {count} threads on {cores} cores: no more than {cores} run at once"));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(count)
        .build_global()
        .map_err(|e| Error::new(format!("cannot start {count} threads: {e}")))?;
    // On a thread of the pool a parallel loop starts without waking anybody first.
    rayon::scope(|_| work())
}
