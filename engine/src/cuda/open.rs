//! Opens a device by its name.

use super::arch::Arch;
use super::driver::Driver;
use super::libraries::{Settings, has_driver, told};
use super::{Gpu, Module};
use crate::{Device, Error, Result};
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUresult, cuDriverGetVersion};
use cudarc::driver::{CudaContext, DriverError, result};
use std::fs;
use std::sync::Arc;

/// The oldest driver that has every function, in its own numbering of CUDA versions: 12.4, driver 550.
const OLDEST_DRIVER: i32 = 12_040;

impl Device {
    /// Opens the device called `cpu`, `cuda`, `cuda:N` or `auto`, with these kernels ready to launch. `cuda` is the first GPU,
    /// and `cuda:N` the GPU number N, from 0, or the only one. `auto` is the first GPU if it can be used, else the CPU. The
    /// second value is a note for the user: why `auto` chose the CPU (empty if there is no driver), or what makes the GPU slow.
    ///
    /// # Errors
    /// If the name is unknown, or `cuda` cannot be used: no driver, no GPU, one of them too old, or no kernels for it.
    pub fn open(name: &str, modules: &[&'static Module], settings: &Settings) -> Result<(Self, Option<Error>)> {
        match name {
            "cpu" => Ok((Self::CPU, None)),
            "cuda" => gpu(0, modules, settings),
            "auto" if !has_driver() => Ok((Self::CPU, None)),
            "auto" => Ok(gpu(0, modules, settings).unwrap_or_else(|why| (Self::CPU, Some(why)))),
            _ => match name.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
                Some(number) => gpu(number, modules, settings),
                None => Err(Error::usage(format!("unknown device '{name}'; use cpu, cuda, cuda:N or auto"))),
            },
        }
    }
}

fn gpu(number: usize, modules: &[&'static Module], settings: &Settings) -> Result<(Device, Option<Error>)> {
    let (driver, missing) = Driver::new(settings, number)?;
    driver.load(modules)?;
    let slow = |why| Error::device(format!("without cuBLASLt, matrix products use this program's slow kernel: {why}"));
    Ok((Device::Cuda(Arc::new(driver)), missing.map(slow)))
}

/// A version of CUDA in the driver's numbering, e.g. `13.0`.
pub(crate) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The driver's own version, if the system knows it, and the version of CUDA that it supports.
pub(crate) fn driver_text(version: i32) -> String {
    let own = fs::read_to_string("/sys/module/nvidia/version").unwrap_or_default();
    format!("{} supports CUDA {}", own.trim(), version_text(version)).trim_start().into()
}

/// The driver's version and the number of its GPUs.
///
/// # Errors
/// If there is no driver, no GPU, or the driver is too old or does not start.
pub(crate) fn check_driver() -> Result<(i32, i32)> {
    if !has_driver() {
        return Err(Error::device("no NVIDIA driver: libcuda.so.1 is not found; install it (550 or later)"));
    }
    let mut version = 0;
    // SAFETY: the driver was found. It writes a number.
    unsafe { cuDriverGetVersion(&raw mut version) }.result().map_err(failed)?;
    // A driver without a usable GPU reports zero.
    if (1..OLDEST_DRIVER).contains(&version) {
        return Err(Error::device(format!(
            "the NVIDIA driver is too old: it supports CUDA {}, but this program needs {} (driver 550) or later",
            version_text(version),
            version_text(OLDEST_DRIVER)
        )));
    }
    let count = match result::init() {
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
        other => other.and_then(|()| CudaContext::device_count()).map_err(failed)?,
    };
    if count == 0 {
        return Err(Error::device(
            "no CUDA device: the NVIDIA driver is installed but lists no GPU (CUDA_VISIBLE_DEVICES can hide GPUs)",
        ));
    }
    Ok((version, count))
}

/// A line that describes a GPU, and whether the kernels run on it. The driver must have been found.
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

fn failed(error: DriverError) -> Error {
    let number = error.0 as u32;
    let what = told::<()>(Err(error)).err().unwrap_or_default();
    Error::device(format!(
        "the NVIDIA driver does not start: {what} (CUDA error {number}); if nvidia-smi fails too, reload the driver or \
         restart the machine"
    ))
}
