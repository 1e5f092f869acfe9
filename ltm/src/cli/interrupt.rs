//! Ctrl-C while training: the first one asks for a checkpoint and an orderly end, the second one ends the program.

use engine::{Error, Result};
use std::process::exit;
use std::sync::atomic::{AtomicU8, Ordering};

/// Exit code of a program ended by an interrupt: 128 + SIGINT.
pub const CODE: u8 = 130;

/// Nothing to save: an interrupt ends the program.
const FREE: u8 = 0;
/// Training: an interrupt is a wish.
const GUARDED: u8 = 1;
/// The wish has been uttered.
const ASKED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(FREE);

/// While this lives, the first interrupt is only noted.
pub struct Guard(());

impl Guard {
    /// Begins to guard. Once per process.
    ///
    /// # Errors
    /// If the system does not let the program handle interrupts.
    pub fn new() -> Result<Self> {
        STATE.store(GUARDED, Ordering::SeqCst);
        ctrlc::set_handler(|| match STATE.compare_exchange(GUARDED, ASKED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => {}
            Err(_) => exit(i32::from(CODE)),
        })
        .map_err(|e| Error::new(format!("cannot handle interrupts: {e}")))?;
        Ok(Self(()))
    }

    /// Whether there has been an interrupt.
    pub fn asked(&self) -> bool {
        STATE.load(Ordering::SeqCst) == ASKED
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        STATE.store(FREE, Ordering::SeqCst);
    }
}
