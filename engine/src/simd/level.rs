//! Which instruction set: detected once, cached, and open to override.

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use super::{Kernel, Scalar};
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

/// The environment variable that names the level to use: `LTM_SIMD=scalar`, `avx2`, `avx512` or `neon`.
pub const VARIABLE: &str = "LTM_SIMD";

/// An instruction set at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// No vector instructions.
    Scalar = 1,
    /// x86-64 with AVX2, FMA and BMI2.
    Avx2,
    /// x86-64 with AVX-512 F, VL, BW and DQ.
    Avx512,
    /// 64-bit Arm.
    Neon,
}

impl Level {
    const ALL: [Self; 4] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Neon];

    const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    fn is_supported(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::is_available(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    fn require(self) -> Result<Self> {
        if self.is_supported() {
            return Ok(self);
        }
        let names: Vec<_> = supported().into_iter().map(Self::name).collect();
        Err(Error::usage(format!("this processor does not have {self}; it supports {}", names.join(", "))))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name).ok_or_else(|| {
            Error::usage(format!("no instruction set is called '{name}'; use scalar, avx2, avx512 or neon"))
        })
    }
}

/// What this processor can run, slowest first.
pub fn supported() -> Vec<Level> {
    Level::ALL.into_iter().filter(|level| level.is_supported()).collect()
}

fn best() -> Level {
    Level::ALL.into_iter().rfind(|level| level.is_supported()).unwrap_or(Level::Scalar)
}

/// The level that `LTM_SIMD` names, or the best supported one when it is unset or empty.
///
/// # Errors
/// A usage error when the variable names nothing known or a level that this processor does not have. [`dispatch`] then
/// silently takes the best level, so that a program should call this at its start.
pub fn level_from_env() -> Result<Level> {
    match std::env::var_os(VARIABLE) {
        None => Ok(best()),
        Some(name) if name.is_empty() => Ok(best()),
        Some(name) => {
            name.to_string_lossy().parse::<Level>().and_then(Level::require).map_err(|error| error.at(VARIABLE))
        }
    }
}

/// The level in use as a `u8`; 0 until the first question.
static CURRENT: AtomicU8 = AtomicU8::new(0);

/// The level that [`dispatch`] uses.
pub fn level() -> Level {
    // Relaxed: whichever thread comes first, the answer is the same, and nothing else is published with it.
    let current = CURRENT.load(Ordering::Relaxed);
    if let Some(level) = Level::ALL.into_iter().find(|&level| level as u8 == current) {
        return level;
    }
    detect()
}

#[cold]
fn detect() -> Level {
    let level = level_from_env().unwrap_or_else(|_| best());
    CURRENT.store(level as u8, Ordering::Relaxed);
    level
}

/// Makes every later [`dispatch`] of the process use `level`.
///
/// # Errors
/// A usage error when this processor does not have it.
pub fn force(level: Level) -> Result<()> {
    CURRENT.store(level.require()? as u8, Ordering::Relaxed);
    Ok(())
}

/// Calls `check` with every supported level forced in turn, then puts the old one back, also when `check` panics. One
/// caller at a time; for tests that hold the levels to the same bits.
pub fn for_each_level(mut check: impl FnMut(Level)) {
    struct Restore(Level);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.store(self.0 as u8, Ordering::Relaxed);
        }
    }

    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _restore = Restore(level());
    for level in supported() {
        CURRENT.store(level as u8, Ordering::Relaxed);
        check(level);
    }
}

/// Runs `kernel` with the instruction set of [`level`].
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match level() {
        // SAFETY: `level` returns only levels that `is_supported` confirmed on this processor.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { Avx512::run(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { Avx2::run(kernel) },
        #[cfg(target_arch = "aarch64")]
        Level::Neon => kernel.run::<Neon>(),
        _ => kernel.run::<Scalar>(),
    }
}
