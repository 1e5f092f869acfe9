//! From a name to a device that is ready.

use super::arch::Arch;
use super::driver::Driver;
use super::libraries::{Library, Settings, told};
use super::{Gpu, Module, symbols};
use crate::{Device, Error, Result};
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUresult, cuDriverGetVersion};
use cudarc::driver::{CudaContext, DriverError, result};
use std::sync::Arc;

/// The oldest driver that knows every call, as it counts versions of CUDA: 12.4, driver 550.
pub(super) const OLDEST_DRIVER: i32 = 12_040;

impl Device {
    /// The device that `cpu`, `cuda` or `auto` stands for, with these kernels ready to launch. `auto` is the GPU if it can
    /// be used; else the CPU, and a note that says why, unless there is nothing to be said: no driver. Of a GPU a note says
    /// what makes it slow.
    ///
    /// # Errors
    /// If the name is another, or for `cuda` if the GPU cannot be used: no driver, no GPU, one of them too old, or no
    /// kernels for it.
    pub fn open(name: &str, modules: &[&'static Module], settings: &Settings) -> Result<(Self, Option<String>)> {
        match name {
            "cpu" => Ok((Self::Cpu, None)),
            "cuda" => gpu(modules, settings),
            "auto" if Library::Driver.is_absent() => Ok((Self::Cpu, None)),
            "auto" => Ok(match gpu(modules, settings) {
                Ok(gpu) => gpu,
                Err(e) => (Self::Cpu, Some(format!("on the CPU: {e}"))),
            }),
            _ => Err(Error::usage(format!("no device is called '{name}'; use cpu, cuda or auto"))),
        }
    }
}

fn gpu(modules: &[&'static Module], settings: &Settings) -> Result<(Device, Option<String>)> {
    let driver = Driver::new(settings)?;
    driver.load(modules)?;
    let slow = Library::CublasLt.find(settings).err();
    let note = slow.map(|why| format!("without cuBLASLt products run on a slow kernel of this program: {why}"));
    Ok((Device::Cuda(Arc::new(driver)), note))
}

/// A version of CUDA as the driver counts it, e.g. `13.0`.
pub(crate) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Finds the driver and its GPUs: its version and their number.
///
/// # Errors
/// What is missing, as one line.
pub(crate) fn check_driver() -> Result<(i32, i32)> {
    Library::Driver.find(&Settings::default()).map_err(no_driver)?;
    let mut version = 0;
    // SAFETY: the driver is there, and writes a number.
    unsafe { cuDriverGetVersion(&raw mut version) }.result().map_err(failed)?;
    // A driver without a GPU to serve counts zero.
    if (1..OLDEST_DRIVER).contains(&version) {
        return Err(Error::new(format!(
            "the NVIDIA driver is too old: it knows CUDA {}, needed is {} (driver 550) or later",
            version_text(version),
            version_text(OLDEST_DRIVER)
        )));
    }
    Library::Driver.check_symbols(&symbols::DRIVER).map_err(no_driver)?;
    match result::init() {
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(no_gpu()),
        Err(DriverError(CUresult::CUDA_ERROR_STUB_LIBRARY)) => {
            return Err(Error::new(
                "the libcuda.so found first is the toolkit's stub, not the NVIDIA driver: take it out of LD_LIBRARY_PATH",
            ));
        }
        other => other.map_err(failed)?,
    }
    match CudaContext::device_count().map_err(failed)? {
        n if n < 1 => Err(no_gpu()),
        n => Ok((version, n)),
    }
}

/// Name, architecture and memory of a GPU, and whether the kernels run on it. The driver must be there.
pub(crate) fn describe_gpu(ordinal: i32) -> std::result::Result<(String, bool), String> {
    let device = told(result::device::get(ordinal))?;
    let name = told(result::device::get_name(device))?;
    // SAFETY: the driver gave the device.
    let number = |attribute| told(unsafe { result::device::get_attribute(device, attribute) });
    let major = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let processors = number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    // SAFETY: as above.
    let bytes = told(unsafe { result::device::total_mem(device) })?;
    let arch = Arch::new(major as u32, minor as u32);
    let gib = bytes as f64 / f64::from(1 << 30);
    Ok((format!("{name} ({arch}), {processors} multiprocessors, {gib:.1} GiB"), arch >= Arch::OLDEST))
}

fn no_driver(why: String) -> Error {
    Error::new(format!("no NVIDIA driver: {why}; install it (580 or later), or use --device cpu"))
}

fn failed(error: DriverError) -> Error {
    let number = error.0 as u32;
    let what = told::<()>(Err(error)).err().unwrap_or_default();
    Error::new(format!(
        "the NVIDIA driver does not start: {what} (CUDA error {number}); if nvidia-smi fails too, reload the driver or \
         restart the machine, or use --device cpu"
    ))
}

fn no_gpu() -> Error {
    Error::new("no CUDA device: the NVIDIA driver is there, but shows no GPU (CUDA_VISIBLE_DEVICES can hide it)")
}
