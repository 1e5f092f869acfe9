//! `--device`: where the numbers are computed.

use super::output::note;
use engine::cuda::Settings;
use engine::{Device, Result};

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

/// Opens the device with every kernel ready to launch, and says on the standard error which GPU it is, or why `auto` does
/// not take the one that seems to be there. Kernels are compiled in parallel, so this belongs inside the
/// [pool](super::threads::inside).
///
/// # Errors
/// Those of [`Device::open`].
pub fn open(choice: Choice) -> Result<Device> {
    let name = match choice {
        Choice::Cpu => "cpu",
        Choice::Cuda => "cuda",
        Choice::Auto => "auto",
    };
    let (device, why) = Device::open(name, &kernels::registry::modules(), &Settings::from_env())?;
    match (&device, why) {
        (Device::Cuda(gpu), _) => note(format_args!("on {}", gpu.name())),
        (Device::Cpu, Some(why)) => note(format_args!("note: {why}; `ltm doctor` says more")),
        (Device::Cpu, None) => {}
    }
    Ok(device)
}
