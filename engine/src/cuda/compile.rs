//! From a module's text to code for a GPU, by NVRTC in this process or by nvcc.

use super::arch::Arch;
use super::libraries::{Settings, nvrtc_version};
use super::{HEADERS, Module, Variant};
use crate::{Error, Result};
use cudarc::nvrtc::result::{NvrtcError, compile_program, destroy_program, get_program_log};
use cudarc::nvrtc::sys::{self, nvrtcProgram};
use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Options of both compilers beside the architecture and the definitions, then the options of each. nvcc compiles a
/// kernel's lambdas for the device by itself.
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
    /// If it is missing.
    pub fn nvrtc(settings: &Settings) -> Result<Self> {
        nvrtc_version(settings).map(|version| Self::Nvrtc { version })
    }

    /// nvcc, if there is one: the program that the environment variable `NVCC` names, that of a toolkit, or the one in the
    /// path.
    ///
    /// # Errors
    /// If `NVCC` names another program.
    pub fn nvcc() -> Result<Option<Self>> {
        if let Some(program) = env::var_os("NVCC").filter(|name| !name.is_empty()).map(PathBuf::from) {
            let text = format!("NVCC = {} does not answer as nvcc does: name nvcc itself", program.display());
            return Self::program(program).map(Some).ok_or_else(|| Error::new(text));
        }
        let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
        let toolkits = toolkits.map(|root| PathBuf::from(root).join("bin/nvcc"));
        Ok(toolkits.chain(["nvcc", "/usr/local/cuda/bin/nvcc"].map(PathBuf::from)).find_map(Self::program))
    }

    /// nvcc, if `program` is nvcc.
    fn program(program: PathBuf) -> Option<Self> {
        // The program will run in another folder, so a relative path must become absolute.
        let is_path = program.components().count() > 1;
        let program = if is_path { std::path::absolute(&program).ok()? } else { program };
        let output = Command::new(&program).arg("--version").output().ok().filter(|o| o.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout);
        // "Cuda compilation tools, release 13.0, V13.0.88"
        let version = text.split("release ").nth(1)?.lines().next()?.to_string();
        Some(Self::Nvcc { program, version })
    }

    /// Name and version.
    pub fn describe(&self) -> String {
        match self {
            Self::Nvrtc { version: (major, minor) } => format!("NVRTC {major}.{minor}"),
            Self::Nvcc { version, .. } => format!("nvcc {version}"),
        }
    }

    /// The code of a module for `arch`.
    ///
    /// # Errors
    /// If the compiler refuses the module: the first error that it reports.
    pub fn compile(&self, module: &Module, variant: Variant, arch: Arch) -> Result<Vec<u8>> {
        let code = match self {
            Self::Nvrtc { .. } => nvrtc(module, variant, arch),
            Self::Nvcc { program, .. } => nvcc(program, module, variant, arch),
        };
        code.map_err(|e| {
            let (compiler, defines) = (self.describe(), variant.defines().join(" "));
            Error::new(format!("{compiler} cannot compile {} ({defines}) for {arch}: {e}", module.name))
        })
    }
}

/// A program of NVRTC's.
struct Program(nvrtcProgram);

impl Program {
    fn new(module: &Module) -> std::result::Result<Self, NvrtcError> {
        let text = |text: &str| CString::new(text).expect("no text of a kernel holds a zero byte");
        let (source, name) = (text(module.source), text(&format!("{}.cu", module.name)));
        let names = HEADERS.map(|(name, _)| text(name));
        let headers = HEADERS.map(|(_, header)| text(header));
        let name_pointers = names.each_ref().map(|name| name.as_ptr());
        let header_pointers = headers.each_ref().map(|header| header.as_ptr());
        let mut program = std::ptr::null_mut();
        // SAFETY: all texts end in zero and live until the call returns, which copies them. There are as many headers as
        // names.
        let created = unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                source.as_ptr(),
                name.as_ptr(),
                HEADERS.len() as i32,
                header_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        };
        created.result().map(|()| Self(program))
    }

    /// What the compiler said.
    fn log(&self) -> String {
        // SAFETY: the program exists.
        let log = unsafe { get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log.into_iter().map(|c| c as u8).take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The code, once the program is compiled.
    fn code(&self) -> std::result::Result<Vec<u8>, NvrtcError> {
        let mut bytes = 0;
        // SAFETY: the program exists, and the code gets as much room as the library asks for.
        unsafe {
            sys::nvrtcGetCUBINSize(self.0, &raw mut bytes).result()?;
            let mut code = vec![0; bytes];
            sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast::<c_char>()).result()?;
            Ok(code)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program exists and is not used any more. A program that cannot be destroyed only keeps its memory.
        let _ = unsafe { destroy_program(self.0) };
    }
}

fn nvrtc(module: &Module, variant: Variant, arch: Arch) -> std::result::Result<Vec<u8>, String> {
    let text = |e: NvrtcError| format!("{:?}", e.0);
    let program = Program::new(module).map_err(text)?;
    let mut options = vec![format!("--gpu-architecture={arch}")];
    options.extend(OPTIONS.iter().chain(&OF_NVRTC).map(ToString::to_string));
    options.extend(variant.defines().iter().map(|define| format!("-D{define}")));
    // SAFETY: the program exists.
    let compiled = unsafe { compile_program(program.0, &options) };
    compiled.map_err(|e| first_error(&program.log()).unwrap_or_else(|| text(e)))?;
    program.code().map_err(text)
}

fn nvcc(program: &Path, module: &Module, variant: Variant, arch: Arch) -> std::result::Result<Vec<u8>, String> {
    let name = format!("nvcc-{}-{}-{}-{arch}", std::process::id(), module.name, variant.defines().join("-"));
    let folder = env::temp_dir().join(name);
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let run = || {
        fs::create_dir_all(&folder).map_err(failed)?;
        for (name, text) in HEADERS.iter().chain([&("kernel.cu", module.source)]) {
            fs::write(folder.join(name), text).map_err(failed)?;
        }
        let number = arch.number();
        let output = Command::new(program)
            .current_dir(&folder)
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
    };
    let code = run();
    // If the folder cannot be removed, the system will clean it up with the other temporary files.
    let _ = fs::remove_dir_all(&folder);
    code
}

/// The first line of a compiler's report that contains "error", or else its first line.
fn first_error(report: &str) -> Option<String> {
    let lines = || report.lines().map(str::trim).filter(|line| !line.is_empty());
    lines().find(|line| line.contains("error")).or_else(|| lines().next()).map(String::from)
}
