//! Handles Ctrl-C, SIGTERM, SIGHUP and SIGUSR1, which mpirun passes on: the first one requests an orderly stop, the second one ends the program.

use engine::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a program ended by an interrupt: 128 + SIGINT.
pub const CODE: u8 = 130;

/// While this exists, the first interrupt is only recorded.
pub struct Guard(Arc<AtomicBool>);

impl Guard {
    /// Begins to guard. Once per process.
    ///
    /// # Errors
    /// If the system does not let the program handle interrupts.
    pub fn new() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGUSR1].into_iter().chain(hangup()) {
            // The order matters: a signal ends the program only if an earlier one was recorded.
            flag::register_conditional_shutdown(signal, i32::from(CODE), asked.clone())
                .and_then(|_| flag::register(signal, asked.clone()))
                .map_err(|e| Error::new(format!("cannot handle interrupts: {e}")))?;
        }
        Ok(Self(asked))
    }

    /// Whether there has been an interrupt.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// An error that stops the current work, if there has been an interrupt.
    pub fn check(&self) -> Result<()> {
        if self.asked() { Err(Error::new("interrupted")) } else { Ok(()) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // No work remains to be stopped, so the next signal ends the program.
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Turns a file that exceeds `ulimit -f` into a write error, so that the writer cleans up and reports it. Otherwise the
/// signal would end the program without a message.
///
/// # Errors
/// If the system does not let the program handle signals.
pub fn outlive_file_limits() -> Result<()> {
    #[cfg(unix)]
    flag::register(signal_hook::consts::SIGXFSZ, Arc::default())
        .map_err(|e| Error::new(format!("cannot handle signals: {e}")))?;
    Ok(())
}

/// SIGHUP, unless the parent process ignores it (as `nohup` does) or this is unknown.
fn hangup() -> Option<i32> {
    const SIGHUP: u32 = 1;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let ignored = u64::from_str_radix(mask.trim(), 16).ok()? >> (SIGHUP - 1) & 1 == 1;
    (!ignored).then_some(SIGHUP as i32)
}
