//! Ctrl-C, and what the system asks with SIGTERM and SIGHUP: the first one asks for an orderly end, the second one ends the
//! program.

use engine::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a program ended by an interrupt: 128 + SIGINT.
pub const CODE: u8 = 130;

/// While this lives, the first interrupt is only noted.
pub struct Guard(Arc<AtomicBool>);

impl Guard {
    /// Begins to guard. Once per process.
    ///
    /// # Errors
    /// If the system does not let the program handle interrupts.
    pub fn new() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM].into_iter().chain(hangup()) {
            // In this order: what the second signal ends, the first has not asked for yet.
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

    /// An error that ends what is under way, if there has been an interrupt.
    pub fn check(&self) -> Result<()> {
        if self.asked() { Err(Error::new("interrupted")) } else { Ok(()) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Nothing is left to be brought to an end: the next signal ends the program.
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Makes a file that outgrows `ulimit -f` an error of whoever writes it, who cleans up and says so. Left alone, its signal ends
/// the program without a word.
///
/// # Errors
/// If the system does not let the program handle signals.
pub fn outlive_file_limits() -> Result<()> {
    #[cfg(unix)]
    flag::register(signal_hook::consts::SIGXFSZ, Arc::default())
        .map_err(|e| Error::new(format!("cannot handle signals: {e}")))?;
    Ok(())
}

/// SIGHUP, unless whoever started the program wants it ignored, as `nohup` does, or that cannot be known.
fn hangup() -> Option<i32> {
    const SIGHUP: u32 = 1;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let ignored = u64::from_str_radix(mask.trim(), 16).ok()? >> (SIGHUP - 1) & 1 == 1;
    (!ignored).then_some(SIGHUP as i32)
}
