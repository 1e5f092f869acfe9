//! `--device`: where the numbers are computed.

use super::output::note;
use engine::cuda::Settings;
use engine::{Device, Error, ErrorKind, Result};
use std::fmt;

/// What a user may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// This machine's processor
    Cpu,
    /// The first NVIDIA GPU that the driver shows
    Cuda,
    /// The GPU if there is one that can be used, else the processor
    #[default]
    Auto,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Auto => "auto",
        })
    }
}

/// Opens the device with every kernel ready to launch, and says on the standard error which GPU it is, or why `auto` takes
/// none. Kernels are compiled in parallel, so this belongs inside the
/// [pool](super::threads::inside).
///
/// # Errors
/// Those of [`Device::open`].
pub fn open(choice: Choice) -> Result<Device> {
    let (device, why) = try_open(choice, &Settings::from_env())?;
    match (&device, why) {
        (Device::Cuda(gpu), None) => note(format_args!("on {}", gpu.name())),
        (Device::Cuda(gpu), Some(slow)) => note(format_args!("on {}; note: {slow}", gpu.name())),
        (Device::Cpu, Some(why)) => note(format_args!("note: on the CPU: {why}; `ltm doctor` says more")),
        (Device::Cpu, None) if choice == Choice::Auto => note("on the CPU: there is no NVIDIA driver"),
        (Device::Cpu, None) => {}
    }
    Ok(device)
}

/// Opens the device and gives it to `begin`, which refuses what the device cannot do before it shows or writes anything. With
/// `auto` the CPU gets what is too much for the GPU, and a note says why.
///
/// # Errors
/// Those of [`open`] and of `begin`.
pub fn within<T>(choice: Choice, mut begin: impl FnMut(&Device) -> Result<T>) -> Result<T> {
    let device = open(choice)?;
    match begin(&device) {
        Err(e) if choice == Choice::Auto && matches!(device, Device::Cuda(_)) && e.kind() == ErrorKind::Device => {
            note(format_args!("note: on the CPU: {e}"));
            begin(&Device::Cpu)
        }
        done => done,
    }
}

/// The error, and which command or flag helps.
pub fn explained(error: &Error, choice: Choice) -> String {
    match error.kind() {
        ErrorKind::Kernels => format!("{error}; `ltm cuda compile` makes a new file"),
        ErrorKind::Device if choice == Choice::Cuda => format!("{error}; --device cpu computes on the processor"),
        _ => error.to_string(),
    }
}

/// As [`open`], but gives the note back.
///
/// # Errors
/// As [`open`].
pub fn try_open(choice: Choice, settings: &Settings) -> Result<(Device, Option<Error>)> {
    Device::open(&choice.to_string(), &kernels::registry::modules(), settings)
}
