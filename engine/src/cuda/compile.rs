//! From a module's text to code for a GPU: by NVRTC in this process, or by nvcc.

use super::arch::Arch;
use super::libraries::{Settings, nvrtc_version};
use super::{HEADERS, Module, Variant};
use crate::{Error, Result};
use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What both compilers are told beside the architecture and the definitions, and each of them. nvcc takes a kernel's lambdas
/// for device code by itself.
pub(crate) const OPTIONS: [&str; 1] = ["--std=c++17"];
pub(crate) const OF_NVRTC: [&str; 1] = ["--device-as-default-execution-space"];
pub(crate) const OF_NVCC: [&str; 1] = ["-O3"];

/// A compiler that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    Nvrtc { version: (i32, i32) },
    Nvcc { program: PathBuf, version: String },
}

impl Compiler {
    /// NVRTC.
    ///
    /// # Errors
    /// If it is not found.
    pub fn nvrtc(settings: &Settings) -> Result<Self> {
        nvrtc_version(settings).map(|version| Self::Nvrtc { version })
    }

    /// nvcc: the program that the environment variable `NVCC` names, that of a toolkit, or the one in the path, if any.
    ///
    /// # Errors
    /// If the program that is named is another.
    pub fn nvcc() -> Result<Option<Self>> {
        let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
        let toolkits = toolkits.map(|root| root.join("bin/nvcc"));
        if let Some(program) = env::var_os("NVCC").filter(|name| !name.is_empty()).map(PathBuf::from) {
            let wrong =
                || Error::new(format!("NVCC = {} does not answer as nvcc does: name nvcc itself", program.display()));
            return Self::program(program.clone()).map(Some).ok_or_else(wrong);
        }
        let places = toolkits.chain(["nvcc", "/usr/local/cuda/bin/nvcc"].map(PathBuf::from));
        Ok(places.into_iter().find_map(Self::program))
    }

    /// nvcc, if the program is it.
    fn program(program: PathBuf) -> Option<Self> {
        // It will run in another folder, where the path to it must hold.
        let is_path = program.components().count() > 1;
        let program = if is_path { std::path::absolute(&program).ok()? } else { program };
        let output = Command::new(&program).arg("--version").output().ok().filter(|o| o.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout);
        // "Cuda compilation tools, release 13.0, V13.0.88"
        let version = text.split("release ").nth(1)?.lines().next()?.to_string();
        Some(Self::Nvcc { program, version })
    }

    /// In words, with the version.
    pub fn describe(&self) -> String {
        match self {
            Self::Nvrtc { version: (major, minor) } => format!("NVRTC {major}.{minor}"),
            Self::Nvcc { version, .. } => format!("nvcc {version}"),
        }
    }

    /// The code of a module for `arch`.
    ///
    /// # Errors
    /// If the compiler refuses it: the first thing that it says.
    pub fn compile(&self, module: &Module, variant: Variant, arch: Arch) -> Result<Vec<u8>> {
        let code = match self {
            Self::Nvrtc { .. } => nvrtc(module, variant, arch),
            Self::Nvcc { program, .. } => nvcc(program, module, variant, arch),
        };
        let code = code.and_then(|code| if code.is_empty() { Err("it left no code".into()) } else { Ok(code) });
        let defines = || variant.defines().join(" ");
        code.map_err(|e| {
            let place = format!("{} cannot compile {} ({}) for {arch}", self.describe(), module.name, defines());
            // One that came later than the compiler.
            let later = e.contains("architecture");
            let hint = if later { "; --arch names the GPUs to compile for" } else { "" };
            Error::new(format!("{place}: {e}{hint}"))
        })
    }
}

/// A program of NVRTC's.
struct Program(nvrtcProgram);

impl Program {
    fn new(module: &Module) -> std::result::Result<Self, String> {
        let text = |text: &str| CString::new(text).map_err(|_| "a zero byte in the text".to_string());
        let (source, name) = (text(module.source)?, text(&format!("{}.cu", module.name))?);
        let names = HEADERS.iter().map(|(name, _)| text(name)).collect::<std::result::Result<Vec<_>, _>>()?;
        let headers = HEADERS.iter().map(|(_, header)| text(header)).collect::<std::result::Result<Vec<_>, _>>()?;
        let pointers = |list: &[CString]| list.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (headers, names) = (pointers(&headers), (pointers(&names), names, headers));
        let mut program = Self(std::ptr::null_mut());
        // SAFETY: all texts end in zero and live until the call returns, which copies them; there are as many headers as
        // names, and the program is written to a place of its own.
        ok(unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program.0,
                source.as_ptr(),
                name.as_ptr(),
                headers.len() as i32,
                headers.as_ptr(),
                names.0.as_ptr(),
            )
        })?;
        Ok(program)
    }

    /// What the compiler said.
    fn log(&self) -> String {
        // SAFETY: the program exists.
        let log = self.bytes(
            |p, n| unsafe { sys::nvrtcGetProgramLogSize(p, n) },
            |p, to| unsafe {
                // SAFETY: the program exists, and `to` has room for the size that it told.
                sys::nvrtcGetProgramLog(p, to)
            },
        );
        let log = log.unwrap_or_default();
        CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Something that the library tells in two calls: how long it is, and what it is.
    fn bytes(
        &self,
        size: impl Fn(nvrtcProgram, *mut usize) -> nvrtcResult,
        get: impl Fn(nvrtcProgram, *mut c_char) -> nvrtcResult,
    ) -> std::result::Result<Vec<u8>, String> {
        let mut n = 0;
        ok(size(self.0, &raw mut n))?;
        let mut bytes = vec![0; n];
        ok(get(self.0, bytes.as_mut_ptr().cast()))?;
        Ok(bytes)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the program exists and is not used any more.
            unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
        }
    }
}

fn ok(result: nvrtcResult) -> std::result::Result<(), String> {
    match result {
        nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn nvrtc(module: &Module, variant: Variant, arch: Arch) -> std::result::Result<Vec<u8>, String> {
    let program = Program::new(module)?;
    let mut options = vec![format!("--gpu-architecture={arch}")];
    options.extend(OPTIONS.iter().chain(&OF_NVRTC).map(ToString::to_string));
    options.extend(variant.defines().iter().map(|define| format!("-D{define}")));
    let options: Vec<CString> = options.into_iter().filter_map(|option| CString::new(option).ok()).collect();
    let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    // SAFETY: the program exists; there are as many options as is said, and all end in zero.
    let result = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
    ok(result).map_err(|e| first_error(&program.log()).unwrap_or(e))?;
    // SAFETY: the program exists.
    program.bytes(
        |p, n| unsafe { sys::nvrtcGetCUBINSize(p, n) },
        |p, to| unsafe {
            // SAFETY: the program exists, and `to` has room for the size that it told.
            sys::nvrtcGetCUBIN(p, to)
        },
    )
}

fn nvcc(program: &Path, module: &Module, variant: Variant, arch: Arch) -> std::result::Result<Vec<u8>, String> {
    let name = format!("ltm-nvcc-{}-{}-{}-{arch}", std::process::id(), module.name, variant.defines().join("-"));
    let folder = env::temp_dir().join(name);
    let code = nvcc_in(&folder, program, module, variant, arch);
    // What cannot be removed from the temporary folder is left to the system.
    let _ = fs::remove_dir_all(&folder);
    code
}

fn nvcc_in(
    folder: &Path,
    program: &Path,
    module: &Module,
    variant: Variant,
    arch: Arch,
) -> std::result::Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
    for (name, text) in HEADERS.iter().chain([&("kernel.cu", module.source)]) {
        fs::write(folder.join(name), text).map_err(failed)?;
    }
    let number = arch.number();
    let output = Command::new(program)
        .current_dir(folder)
        .args(OPTIONS.iter().chain(&OF_NVCC))
        .args(["-cubin", "-o", "kernel.cubin", "kernel.cu"])
        .arg(format!("-gencode=arch=compute_{number},code=sm_{number}"))
        .args(variant.defines().iter().map(|define| format!("-D{define}")))
        .output()
        .map_err(|e| format!("{} does not start: {e}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(first_error(&said).unwrap_or_else(|| output.status.to_string()));
    }
    fs::read(folder.join("kernel.cubin")).map_err(failed)
}

/// The first line of a compiler's report that speaks of an error.
fn first_error(report: &str) -> Option<String> {
    let lines = || report.lines().map(str::trim).filter(|line| !line.is_empty());
    lines().find(|line| line.contains("error")).or_else(|| lines().next()).map(String::from)
}
