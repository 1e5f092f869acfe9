//! What this machine has, for the person who sits before it.

use crate::cuda::libraries::{Library, nvrtc_version};
use crate::cuda::{Settings, open, version};
use crate::{Device, simd};
use std::path::Path;
use std::{fs, thread};

/// What a part of the machine is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there and will be used.
    Used,
    /// It is there and will not be used.
    Unused,
    /// It is not there or cannot be used.
    Missing,
}

/// A part of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which part, e.g. `driver`.
    pub part: &'static str,
    /// What it is good for.
    pub state: State,
    /// What was found, or what is missing and what can be done about it.
    pub text: String,
}

/// Looks at the processor, its memory, the driver, GPUs, and what the GPU's kernels need; which of them are used, `device`
/// says. Never fails: what is not there is a finding.
pub fn probe(settings: &Settings, device: &Device) -> Vec<Finding> {
    let mut findings = vec![processor(), cores(), memory()];
    let on_gpu = matches!(device, Device::Cuda(_));
    match open::check_driver() {
        Ok((version, count)) => {
            let own = fs::read_to_string("/sys/module/nvidia/version").unwrap_or_default();
            let text = format!("{} knows CUDA {}", own.trim(), open::version_text(version));
            findings.push(found("driver", on_gpu, text.trim_start().into()));
            findings.extend((0..count).map(|ordinal| gpu(ordinal, on_gpu)));
        }
        Err(e) => findings.push(missing("driver", e.to_string())),
    }
    findings.extend(kernels(settings, on_gpu));
    findings.push(cublas(settings, on_gpu));
    findings
}

/// There, and used if something can use it.
fn found(part: &'static str, is_used: bool, text: String) -> Finding {
    Finding { part, state: if is_used { State::Used } else { State::Unused }, text }
}

fn missing(part: &'static str, text: String) -> Finding {
    Finding { part, state: State::Missing, text }
}

/// The value of the first line `name … : value` of a file of the kernel's.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_string())
}

/// The processor's name as the system tells it.
pub fn processor_name() -> String {
    field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into())
}

fn processor() -> Finding {
    let name = processor_name();
    let levels: Vec<String> = simd::supported().iter().map(ToString::to_string).collect();
    let text = format!("{name}: {}, of these {} ({} names another)", levels.join(", "), simd::level(), simd::VARIABLE);
    found("processor", true, text)
}

fn cores() -> Finding {
    match thread::available_parallelism() {
        Ok(n) => found("cores", true, format!("{n} for this process")),
        Err(e) => missing("cores", format!("cannot be counted: {e}")),
    }
}

fn memory() -> Finding {
    let gib = |name| {
        let kib: f64 = field("/proc/meminfo", name)?.split(' ').next()?.parse().ok()?;
        Some(kib / f64::from(1 << 20))
    };
    match (gib("MemTotal"), gib("MemAvailable")) {
        (Some(total), Some(free)) => found("memory", true, format!("{total:.1} GiB, {free:.1} GiB of it free")),
        _ => missing("memory", "this system does not tell how much there is".into()),
    }
}

fn gpu(ordinal: i32, on_gpu: bool) -> Finding {
    match open::describe_gpu(ordinal) {
        Ok((text, true)) if ordinal == 0 => found("GPU", on_gpu, text),
        Ok((text, true)) => found("GPU", false, format!("{text}; CUDA_VISIBLE_DEVICES={ordinal} chooses it")),
        Ok((text, false)) => missing("GPU", format!("{text} is too old: sm_80 (A100, RTX 30) or later is needed")),
        Err(e) => missing("GPU", format!("number {ordinal} cannot be used: {e}")),
    }
}

/// What compiles kernels, where they are kept, and those that were compiled beforehand.
fn kernels(settings: &Settings, on_gpu: bool) -> Vec<Finding> {
    let given = settings.kernels.as_ref();
    let mut findings = Vec::new();
    if let Some(path) = given {
        findings.push(match crate::cuda::describe_file(path) {
            Ok(text) => found("compiled kernels", on_gpu, format!("{}: {text}", path.display())),
            Err(e) => missing("compiled kernels", e.to_string()),
        });
    }
    findings.push(match nvrtc_version(settings) {
        Ok((major, minor)) => {
            found("NVRTC", on_gpu && given.is_none(), format!("{major}.{minor}{}", place(Library::Nvrtc)))
        }
        Err(e) if given.is_none() => missing("NVRTC", e.to_string()),
        Err(_) => missing("NVRTC", "not found, and not needed beside compiled kernels".into()),
    });
    if given.is_none() {
        findings.push(match &settings.cache {
            // Whoever opened the device has put its kernels there.
            Some(path) if on_gpu && !has_kernels(path) => missing(
                "kernel cache",
                format!(
                    "kernels are compiled by every run: {} cannot be written; name another folder in {}",
                    path.display(),
                    Settings::CACHE
                ),
            ),
            Some(path) => found("kernel cache", on_gpu, path.display().to_string()),
            None => missing(
                "kernel cache",
                format!("kernels are compiled by every run: name a folder in {}", Settings::CACHE),
            ),
        });
    }
    findings
}

/// Whether a cache holds any.
fn has_kernels(folder: &Path) -> bool {
    let mut files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.any(|file| file.path().extension().is_some_and(|kind| kind == "kernels"))
}

fn cublas(settings: &Settings, on_gpu: bool) -> Finding {
    match Library::CublasLt.find(settings) {
        Ok(()) => found("cuBLASLt", on_gpu, format!("{}{}", version(), place(Library::CublasLt))),
        Err(why) => missing(
            "cuBLASLt",
            format!("{why}: products run on a slow kernel of this program; name its folder in {}", Settings::LIBRARIES),
        ),
    }
}

fn place(library: Library) -> String {
    library.path().map(|path| format!(" ({})", path.display())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_spoken_of_in_one_line() {
        for kernels in [None, Some("/nowhere/kernels".into())] {
            let findings = probe(&Settings { kernels, ..Settings::default() }, &Device::Cpu);
            for part in ["processor", "cores", "memory", "driver", "NVRTC", "cuBLASLt"] {
                assert!(findings.iter().any(|f| f.part == part), "{part}: {findings:?}");
            }
            for f in &findings {
                assert!(!f.text.is_empty() && !f.text.contains('\n'), "{f:?}");
            }
            let used = |part| findings.iter().any(|f| f.part == part && f.state == State::Used);
            assert!(used("processor") && used("cores"));
            assert!(!used("driver") && !used("NVRTC") && !used("cuBLASLt"));
        }
    }
}
