//! Compiles a module's source to GPU code, by NVRTC in this process.

use super::arch::Arch;
use super::{HEADERS, Module, Settings, Variant};
use crate::{Error, Result};
use cudarc::nvrtc::result::{NvrtcError, compile_program, destroy_program, get_program_log};
use cudarc::nvrtc::sys::{self, nvrtcProgram};
use std::ffi::{CString, c_char};

/// The compiler's options besides the architecture and the definitions.
pub(crate) const OPTIONS: [&str; 3] =
    ["--std=c++17", "--device-as-default-execution-space", "--ptxas-options=-warn-spills"];

/// The code of a module for `arch`, and the compiler's lines about registers that it spilled to memory. `version` is
/// that of NVRTC, which must have been found.
///
/// # Errors
/// If the compiler refuses the module: the first error that it reports.
pub(crate) fn compile(module: &Module, variant: Variant, arch: Arch, version: &str) -> Result<(Vec<u8>, Vec<String>)> {
    let program = Program::new(module)?;
    let mut options = vec![format!("--gpu-architecture={arch}")];
    options.extend(OPTIONS.map(String::from));
    options.extend(variant.defines().iter().map(|define| format!("-D{define}")));
    // SAFETY: the program exists.
    unsafe { compile_program(program.0, &options) }.map_err(|e| {
        let defines = variant.defines().join(" ");
        let said = program.log_lines("error").into_iter().next().unwrap_or_else(|| e.to_string());
        Error::new(format!("NVRTC {version} cannot compile {} ({defines}) for {arch}: {said}", module.name))
    })?;
    let spills = program.log_lines("spill").into_iter().map(|line| format!("{} ({arch}): {line}", module.name));
    Ok((program.code()?, spills.collect()))
}

/// The architecture to compile for, so that the code runs on `gpu`: the newest such that the compiler knows. A GPU may be
/// newer than the compiler. `version` as for [`compile`].
///
/// # Errors
/// If the compiler knows none.
pub(crate) fn target(gpu: Arch, version: &str) -> Result<Arch> {
    let mut count = 0;
    // SAFETY: the library was found. It writes a number.
    unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) }.result().map_err(failed)?;
    let mut numbers = vec![0; count as usize];
    // SAFETY: the library writes as many numbers as it said.
    unsafe { sys::nvrtcGetSupportedArchs(numbers.as_mut_ptr()) }.result().map_err(failed)?;
    let known = numbers.into_iter().map(|number| Arch::new(number as u32 / 10, number as u32 % 10));
    known.filter(|&arch| gpu.runs(arch)).max().ok_or_else(|| {
        let (compilers, libraries) = (gpu.compilers(), Settings::LIBRARIES);
        Error::device(format!(
            "NVRTC {version} cannot compile for {gpu}: name the folder of NVRTC from {compilers} in {libraries}"
        ))
    })
}

/// An error of a call other than the compilation.
fn failed(error: NvrtcError) -> Error {
    Error::new(format!("NVRTC does not work: {error}"))
}

/// An NVRTC program.
struct Program(nvrtcProgram);

impl Program {
    fn new(module: &Module) -> Result<Self> {
        let text = |text: &str| CString::new(text).expect("a kernel's source contains no zero byte");
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
        created.result().map_err(failed)?;
        Ok(Self(program))
    }

    /// The lines of the compiler's log that contain this word.
    fn log_lines(&self, word: &str) -> Vec<String> {
        // SAFETY: the program exists.
        let log = unsafe { get_program_log(self.0) }.unwrap_or_default();
        let log = String::from_utf8_lossy(bytemuck::cast_slice(&log)).into_owned();
        log.lines().filter(|line| line.contains(word)).map(|line| line.trim().to_string()).collect()
    }

    /// The code, once the program is compiled.
    fn code(&self) -> Result<Vec<u8>> {
        let mut bytes = 0;
        // SAFETY: the program exists. The library writes a number.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut bytes) }.result().map_err(failed)?;
        let mut code = vec![0; bytes];
        // SAFETY: the program exists, and the buffer has the size that the library asked for.
        unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast::<c_char>()) }.result().map_err(failed)?;
        Ok(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program exists and is not used any more. If it cannot be destroyed, only its memory leaks.
        let _ = unsafe { destroy_program(self.0) };
    }
}
