//! Chooses the instruction set: the best of the processor, unless overridden.

#[cfg(target_arch = "x86_64")]
use super::amx::Amx;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512, Flushing, Narrowing};
use super::{Isa, Kernel, Scalar};
use crate::{Error, Result};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{env, fmt};

/// The environment variable that names the level to use: `LTM_SIMD=scalar`, `avx2`, `avx512`, `amx` or `neon`.
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
    /// The tiles of AMX for products of bf16 matrices; all else as [`Avx512`](Self::Avx512).
    Amx,
    /// 64-bit Arm.
    Neon,
}

impl Level {
    const ALL: [Self; 5] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx, Self::Neon];

    fn is_supported(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Amx::is_available(),
            Self::Neon => cfg!(target_arch = "aarch64"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The level of this name, if the processor has it.
    pub(super) fn named(name: &str) -> Result<Self> {
        let Some(level) = Self::ALL.into_iter().find(|level| level.to_string() == name) else {
            let known = "use scalar, avx2, avx512, amx or neon";
            return Err(Error::usage(format!("unknown instruction set '{name}'; {known}")));
        };
        if level.is_supported() {
            return Ok(level);
        }
        let names: Vec<_> = supported().iter().map(Self::to_string).collect();
        Err(Error::usage(format!("this processor does not have {level}; it supports {}", names.join(", "))))
    }

    fn make_current(self) -> Self {
        CURRENT.store(self as u8, Ordering::Relaxed);
        self
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// The levels that this processor has, slowest first.
pub fn supported() -> Vec<Level> {
    Level::ALL.into_iter().filter(|level| level.is_supported()).collect()
}

fn best() -> Level {
    Level::ALL.into_iter().rfind(|level| level.is_supported()).unwrap_or(Level::Scalar)
}

/// The level that `LTM_SIMD` names, or the best supported one if it is unset or empty.
///
/// # Errors
/// A usage error if the variable names an unknown level, or one that this processor does not have. [`dispatch`] then
/// silently takes the best level, so a program should call this at its start.
pub fn level_from_env() -> Result<Level> {
    match env::var_os(VARIABLE).filter(|name| !name.is_empty()) {
        None => Ok(best()),
        Some(name) => Level::named(&name.to_string_lossy()).map_err(|error| error.at(VARIABLE)),
    }
}

/// The level in use as a `u8`; 0 until the first call.
static CURRENT: AtomicU8 = AtomicU8::new(0);

/// The level that [`dispatch`] uses.
pub fn level() -> Level {
    // Relaxed: every thread that detects the level finds the same one, and no other data depends on it.
    let current = CURRENT.load(Ordering::Relaxed);
    Level::ALL.into_iter().find(|&level| level as u8 == current).unwrap_or_else(detect)
}

#[cold]
fn detect() -> Level {
    level_from_env().unwrap_or_else(|_| best()).make_current()
}

/// Calls `check` with every supported level forced in turn, then restores the old one, even if `check` panics. For
/// tests that all levels give the same bits; other callers wait.
pub fn for_each_level(mut check: impl FnMut(Level)) {
    struct Restore(Level);
    impl Drop for Restore {
        fn drop(&mut self) {
            self.0.make_current();
        }
    }

    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _restore = Restore(level());
    supported().into_iter().for_each(|level| check(level.make_current()));
}

/// Runs `kernel` with the instruction set of [`level`].
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match level() {
        // SAFETY: `level` returns only levels that `is_supported` confirmed on this processor.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Amx => unsafe { Avx512::run(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { Avx2::run(kernel) },
        #[cfg(target_arch = "aarch64")]
        Level::Neon => run::<Neon, K>(kernel),
        _ => run::<Scalar, K>(kernel),
    }
}

/// In a frame of its own. Without optimisation a kernel's frame holds the variables of all that it inlines, more than a
/// megabyte, and those of two instruction sets together overflowed the stack of a thread.
#[inline(never)]
fn run<I: Isa, K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<I>()
}

/// As [`dispatch`], but subnormal operands count as zeros, and subnormal results of f32 and f64 operations become zeros. Only
/// on x86-64 with AVX2: elsewhere they stay.
pub fn dispatch_flushing<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    let _flushing = Flushing::begin();
    dispatch(kernel)
}

/// As [`dispatch`], with the processor's own conversion to bf16 at [`Level::Amx`].
pub fn dispatch_narrowing<K: Kernel>(kernel: K) -> K::Output {
    match level() {
        // SAFETY: `is_supported` confirmed the level, whose processors have this conversion.
        #[cfg(target_arch = "x86_64")]
        Level::Amx => unsafe { Narrowing::run(kernel) },
        _ => dispatch(kernel),
    }
}
