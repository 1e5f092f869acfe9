//! Where the code of kernels comes from: a file made beforehand, the cache of an earlier run, or the compiler.

use super::arch::Arch;
use super::bundle::{self, Entry, Hash, Label};
use super::compile::Compiler;
use super::libraries::{Library, Settings};
use super::{Module, Variant};
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The code of every variant of these modules, in their order.
///
/// # Errors
/// If the file of compiled kernels does not fit, or there is none and NVRTC is missing or refuses a kernel.
pub(crate) fn code(settings: &Settings, arch: Arch, variants: &[(&'static Module, Variant)]) -> Result<Vec<Vec<u8>>> {
    if let Some(path) = &settings.kernels {
        return entries(path).and_then(|entries| from_file(&entries, arch, variants)).map_err(|e| at_file(path, e));
    }
    let compiler = Compiler::nvrtc(settings)?;
    let compile = |&(module, variant): &(&'static Module, Variant)| {
        let label = Label::new(module, variant, arch);
        let path = settings.cache.as_ref().map(|folder| folder.join(file_name(&label, &compiler)));
        if let Some(code) = path.as_ref().and_then(|path| cached(path, &label)) {
            return Ok(code);
        }
        let code = compiler.compile(module, variant, arch)?;
        if let (Some(folder), Some(path)) = (&settings.cache, path) {
            let file = bundle::encode(&[Entry { label, code: code.clone() }]);
            // If the cache cannot be written, the next run only takes some seconds longer.
            let _ = fs::create_dir_all(folder).is_ok_and(|()| fs::write(path, file).is_ok());
        }
        Ok(code)
    };
    // First collected, so that the first error in order is reported, whichever came first in time.
    let codes: Vec<Result<Vec<u8>>> = variants.par_iter().map(compile).collect();
    codes.into_iter().collect()
}

/// A name in the cache, which follows from everything that the code depends on.
fn file_name(label: &Label, compiler: &Compiler) -> String {
    let mut hash = Hash::default();
    hash.bytes(&label.fingerprint.to_le_bytes()).text(&compiler.describe());
    format!("{}-{}-{:032x}.kernels", label.name, label.arch, hash.value())
}

/// The code that an earlier run left. A file that is not whole counts as none.
fn cached(path: &Path, label: &Label) -> Option<Vec<u8>> {
    let entries = bundle::decode(&fs::read(path).ok()?).ok()?;
    entries.into_iter().find(|entry| entry.label == *label).map(|entry| entry.code)
}

fn from_file(entries: &[Entry], arch: Arch, variants: &[(&'static Module, Variant)]) -> Result<Vec<Vec<u8>>> {
    if !entries.iter().any(|entry| arch.runs(entry.label.arch)) {
        return Err(Error::kernels(format!("holds kernels for {}, but this GPU needs {arch}", archs(entries))));
    }
    let code = |&(module, variant): &(&'static Module, Variant)| {
        let label = Label::new(module, variant, arch);
        let same = |entry: &&Entry| entry.label.name == label.name && entry.label.defines == label.defines;
        // The newest architecture that this GPU runs.
        let found = entries.iter().filter(same).filter(|e| arch.runs(e.label.arch)).max_by_key(|e| e.label.arch);
        match found {
            Some(entry) if entry.label.fingerprint == label.fingerprint => Ok(entry.code.clone()),
            Some(_) => {
                Err(Error::kernels(format!("holds the kernels of {} of another version of this program", label.name)))
            }
            None => Err(Error::kernels(format!("does not hold {} ({}) for {arch}", label.name, label.defines))),
        }
    };
    variants.iter().map(code).collect()
}

/// The entries of a file of compiled kernels.
fn entries(path: &Path) -> Result<Vec<Entry>> {
    bundle::decode(&fs::read(path).map_err(|e| Error::new(format!("cannot be read: {e}")))?)
}

fn at_file(path: &Path, error: Error) -> Error {
    error.at(format_args!("{} = {}", Settings::KERNELS, path.display()))
}

/// The architectures of these entries, for messages.
fn archs(entries: &[Entry]) -> String {
    let archs: BTreeSet<Arch> = entries.iter().map(|entry| entry.label.arch).collect();
    let names: Vec<String> = archs.iter().map(ToString::to_string).collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// A line about a file of compiled kernels.
///
/// # Errors
/// If it cannot be read or is not such a file.
pub(crate) fn describe_file(path: &Path) -> Result<String> {
    let entries = entries(path).map_err(|e| at_file(path, e))?;
    Ok(format!("{} kernels for {}", entries.len(), archs(&entries)))
}

/// The result of [`compile_file`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The compiler with its version, e.g. `NVRTC 13.0`.
    pub compiler: String,
    /// Number of compilations: modules times variants times architectures.
    pub kernels: usize,
    /// Size of the file.
    pub bytes: usize,
}

/// Compiles every variant of these modules for these GPUs into one file, by nvcc if it is found, else by NVRTC. Each GPU and
/// module takes some seconds. No GPU is needed. A machine without a compiler uses the file by [`Settings::kernels`].
///
/// # Errors
/// If there is no compiler, it refuses a kernel, or the file cannot be written.
pub fn compile_file(modules: &[&'static Module], archs: &[Arch], settings: &Settings, out: &Path) -> Result<Compiled> {
    let compiler = match Compiler::nvcc()? {
        Some(nvcc) => nvcc,
        None => {
            Library::Nvrtc.find(settings).map_err(|why| {
                Error::new(format!(
                    "no compiler is found: neither nvcc (in the path, or named by NVCC) nor NVRTC ({why}; {} names its folder)",
                    Settings::LIBRARIES
                ))
            })?;
            Compiler::nvrtc(settings)?
        }
    };
    let modules = super::with_own(modules);
    let jobs: Vec<_> = archs
        .iter()
        .flat_map(|&arch| modules.iter().flat_map(move |module| module.variants().map(move |v| (*module, v, arch))))
        .collect();
    let compile = |&(module, variant, arch): &(&'static Module, Variant, Arch)| {
        let code = compiler.compile(module, variant, arch)?;
        Ok(Entry { label: Label::new(module, variant, arch), code })
    };
    let entries: Vec<Result<Entry>> = jobs.par_iter().map(compile).collect();
    let entries = entries.into_iter().collect::<Result<Vec<_>>>()?;
    let file = bundle::encode(&entries);
    fs::write(out, &file).map_err(|e| Error::io("write", out, &e))?;
    Ok(Compiled { compiler: compiler.describe(), kernels: entries.len(), bytes: file.len() })
}
