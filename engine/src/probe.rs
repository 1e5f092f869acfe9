//! Finds out what this machine has to compute with.

use crate::cuda::libraries::{Library, nvrtc_version};
use crate::cuda::{Settings, describe_file, open, version};
use crate::{Device, simd};
use std::num::NonZero;
use std::path::PathBuf;
use std::{fs, thread};

/// The state of a part of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It will be used.
    Used,
    /// It works but will not be used.
    Unused,
    /// It is missing or does not work.
    Missing,
}

/// A part of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which part, e.g. `driver`.
    pub part: &'static str,
    /// Its state.
    pub state: State,
    /// What was found, or what is missing and what would help.
    pub text: String,
}

impl Finding {
    fn found(part: &'static str, is_used: bool, text: impl Into<String>) -> Self {
        Self { part, state: if is_used { State::Used } else { State::Unused }, text: text.into() }
    }

    fn missing(part: &'static str, text: impl ToString) -> Self {
        Self { part, state: State::Missing, text: text.to_string() }
    }
}

/// Checks the processor, memory, driver, GPUs, and what GPU kernels need. `device` decides which of them are used.
/// Never fails: a missing part is a finding.
pub fn probe(settings: &Settings, device: &Device) -> Vec<Finding> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let cores = Finding::found("cores", true, format!("{cores} for this process"));
    let mut findings = vec![processor(), cores, memory()];
    findings.extend(amx());
    let on_gpu = matches!(device, Device::Cuda(_));
    match open::check_driver() {
        Ok((version, count)) => {
            findings.push(Finding::found("driver", on_gpu, open::driver_text(version)));
            findings.extend((0..count).map(|ordinal| gpu(ordinal, on_gpu)));
        }
        Err(e) => findings.push(Finding::missing("driver", e)),
    }
    let given = settings.kernels.as_ref();
    findings.extend(given.map(|path| match describe_file(path) {
        Ok(text) => Finding::found("compiled kernels", on_gpu, format!("{}: {text}", path.display())),
        Err(e) => Finding::missing("compiled kernels", e),
    }));
    findings.push(match (nvrtc_version(settings), given) {
        (Ok(version), _) => library("NVRTC", Library::Nvrtc, on_gpu && given.is_none(), &version),
        (Err(e), None) => Finding::missing("NVRTC", e),
        (Err(_), Some(_)) => Finding::missing("NVRTC", "not found, and not needed with compiled kernels"),
    });
    if given.is_none() {
        let is_empty = |folder: &PathBuf| fs::read_dir(folder).map_or(true, |mut files| files.next().is_none());
        findings.push(match &settings.cache {
            // An open device has already stored its kernels there, if it could.
            Some(folder) if !on_gpu || !is_empty(folder) => {
                Finding::found("kernel cache", on_gpu, folder.display().to_string())
            }
            given => {
                let cannot = given.iter().map(|folder| format!("{} cannot be written; ", folder.display()));
                let cannot: String = cannot.collect();
                let advice = format!("every run compiles its kernels: {cannot}name a folder in {}", Settings::CACHE);
                Finding::missing("kernel cache", advice)
            }
        });
    }
    findings.push(match Library::CublasLt.find(settings) {
        Ok(()) => library("cuBLASLt", Library::CublasLt, on_gpu, &version()),
        Err(why) => {
            let advice =
                format!("matrix products use this program's slow kernel; name its folder in {}", Settings::LIBRARIES);
            Finding::missing("cuBLASLt", format!("{why}: {advice}"))
        }
    });
    findings
}

/// The value of the first line `name … : value` of a file under /proc.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_string())
}

/// The processor's name, from the system.
pub fn processor_name() -> String {
    field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into())
}

fn processor() -> Finding {
    let levels: Vec<String> = simd::supported().iter().map(ToString::to_string).collect();
    let (name, levels, level) = (processor_name(), levels.join(", "), simd::level());
    Finding::found("processor", true, format!("{name}: {levels}; using {level} ({} sets it)", simd::VARIABLE))
}

/// If the processor has the tiles.
fn amx() -> Option<Finding> {
    #[cfg(target_arch = "x86_64")]
    return Some(match simd::Amx::is_lent()? {
        true => Finding::found("AMX", simd::level() == simd::Level::Amx, "granted by the kernel, for products in bf16"),
        false => Finding::missing("AMX", "the processor has it, but the kernel does not grant it to this process"),
    });
    #[cfg(not(target_arch = "x86_64"))]
    None
}

fn memory() -> Finding {
    let gib = |name| {
        let kib: f64 = field("/proc/meminfo", name)?.split(' ').next()?.parse().ok()?;
        Some(kib / f64::from(1 << 20))
    };
    match (gib("MemTotal"), gib("MemAvailable")) {
        (Some(total), Some(free)) => {
            Finding::found("memory", true, format!("{total:.1} GiB, {free:.1} GiB of it free"))
        }
        _ => Finding::missing("memory", "this system does not report it"),
    }
}

fn gpu(ordinal: i32, on_gpu: bool) -> Finding {
    match open::describe_gpu(ordinal) {
        Ok((text, true)) if ordinal == 0 => Finding::found("GPU", on_gpu, text),
        Ok((text, true)) => Finding::found("GPU", false, format!("{text}; CUDA_VISIBLE_DEVICES={ordinal} chooses it")),
        Ok((text, false)) => {
            Finding::missing("GPU", format!("{text} is too old: sm_80 (A100, RTX 30) or later is needed"))
        }
        Err(e) => Finding::missing("GPU", format!("number {ordinal} cannot be used: {e}")),
    }
}

/// A library that was found, with its file.
fn library(part: &'static str, library: Library, is_used: bool, version: &str) -> Finding {
    match library.file() {
        Ok(Some(path)) => Finding::found(part, is_used, format!("{version} ({})", path.display())),
        Ok(None) => Finding::found(part, is_used, version),
        Err(two) => Finding::missing(part, two),
    }
}
