//! `--device` and `--threads`: where the numbers are computed.

use super::command_line::whole;
use super::output::note;
use super::ranks;
use clap::ValueEnum;
use engine::cuda::Settings;
use engine::simd::{self, Level};
use engine::{Device, Error, ErrorKind, Result, parallel};
use ltm::config::Precision;

/// The choices of `--device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// The CPU
    Cpu,
    /// The first NVIDIA GPU that the driver lists
    Cuda,
    /// The GPU if there is a usable one, else the CPU
    #[default]
    Auto,
}

/// Where a command computes.
#[derive(clap::Args)]
pub struct Place {
    /// Number of threads; 0 for all cores [default: the setting train.threads]. Results do not depend on it
    #[arg(long, global = true, display_order = 100, value_name = "N", value_parser = whole::<usize>(0..=4096))]
    threads: Option<usize>,
    /// Where to compute
    #[arg(long, global = true, display_order = 100, value_enum, default_value_t)]
    pub device: Choice,
}

impl Place {
    /// The number of threads asked for, else `usual`; 0 for one per core.
    pub fn threads(&self, usual: usize) -> usize {
        self.threads.unwrap_or(usual)
    }

    /// Runs `work` on the one thread pool of all numerical code; `usual` as in [`threads`](Self::threads).
    ///
    /// # Errors
    /// Those of `work`, or of the system when it cannot start threads.
    pub fn inside<T: Send>(&self, usual: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let count = self.threads(usual);
        rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .build_global()
            .map_err(|e| Error::new(format!("cannot start {count} threads: {e}")))?;
        parallel::in_pool(work)
    }

    /// Opens the device with every kernel ready to launch, and notes on standard error which GPU it is, or why `auto`
    /// uses the CPU. Kernels are compiled in parallel, so call this [`inside`](Self::inside) the pool.
    pub fn open(&self) -> Result<Device> {
        self.announced(false)
    }

    /// As [`open`](Self::open), for training, which takes long: a note also says that there is no GPU.
    pub fn open_to_train(&self) -> Result<Device> {
        self.announced(true)
    }

    fn announced(&self, trains: bool) -> Result<Device> {
        let (mut device, mut why) = self.try_open(&Settings::from_env())?;
        if self.device == Choice::Auto && matches!(device, Device::Cuda(_)) && ranks::gpu().is_some() {
            why = Some(Error::device("several processes have a GPU each only with --device cuda"));
            device = Device::CPU;
        }
        match (&device, why) {
            (Device::Cuda(gpu), None) => note(format_args!("on {}", gpu.name())),
            (Device::Cuda(gpu), Some(slow)) => note(format_args!("on {}; note: {slow}", gpu.name())),
            (Device::Cpu(_), Some(why)) => note(format_args!("note: on the CPU: {why}; `ltm doctor` shows more")),
            (Device::Cpu(_), None) if self.device == Choice::Auto && trains => {
                note("on the CPU: there is no NVIDIA driver")
            }
            (Device::Cpu(_), None) => {}
        }
        Ok(device)
    }

    /// As [`open`](Self::open), but returns the note.
    pub fn try_open(&self, settings: &Settings) -> Result<(Device, Option<Error>)> {
        let name = match ranks::gpu() {
            Some(number) if self.device == Choice::Cuda => format!("cuda:{number}"),
            _ => self.device_name(),
        };
        Device::open(&name, &kernels::registry::modules(), settings)
    }

    /// The device's name on the command line.
    pub fn device_name(&self) -> String {
        self.device.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
    }

    /// Opens the device and passes it to `begin`, which fails before it prints or writes anything if the device cannot
    /// do the work. With `auto` the CPU then takes over, and a note gives the reason.
    pub fn within<T>(&self, begin: impl FnMut(&Device) -> Result<T>) -> Result<T> {
        self.begin(self.open()?, begin)
    }

    /// As [`within`](Self::within), by [`open_to_train`](Self::open_to_train). A note says so if another precision would
    /// be faster.
    pub fn within_training<T>(&self, precision: Precision, mut begin: impl FnMut(&Device) -> Result<T>) -> Result<T> {
        self.begin(self.open_to_train()?, |device| {
            let begun = begin(device)?;
            if precision.on(device).rounds_products() && simd::level() != Level::Amx {
                note("note: without AMX, train.precision=bf16 is slower than f32; it computes what a machine with AMX does");
            }
            Ok(begun)
        })
    }

    fn begin<T>(&self, device: Device, mut begin: impl FnMut(&Device) -> Result<T>) -> Result<T> {
        match begin(&device) {
            Err(e)
                if self.device == Choice::Auto && !matches!(device, Device::Cpu(_)) && e.kind == ErrorKind::Device =>
            {
                note(format_args!("note: on the CPU: {e}"));
                begin(&Device::CPU)
            }
            done => done,
        }
    }

    /// The error, with the command or flag that helps.
    pub fn explained(&self, error: &Error) -> String {
        match error.kind {
            ErrorKind::Kernels => format!("{error}; `ltm cuda compile` makes a new file"),
            ErrorKind::Device if self.device == Choice::Cuda => {
                format!("{error}; --device cpu uses the CPU")
            }
            _ => error.to_string(),
        }
    }
}
