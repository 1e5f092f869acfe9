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
/// If the file of compiled kernels is not right, or there is none and NVRTC is missing or refuses a kernel.
pub(crate) fn code(settings: &Settings, arch: Arch, variants: &[(&'static Module, Variant)]) -> Result<Vec<Vec<u8>>> {
    if let Some(path) = &settings.kernels {
        return from_file(path, arch, variants);
    }
    let compiler = Compiler::nvrtc(settings)?;
    let codes: Vec<Result<Vec<u8>>> = variants
        .par_iter()
        .map(|&(module, variant)| {
            let label = Label::new(module, variant, arch);
            let Some(folder) = &settings.cache else { return compiler.compile(module, variant, arch) };
            let path = folder.join(file_name(&label, &compiler));
            if let Some(code) = look_up(&path, &label) {
                return Ok(code);
            }
            let code = compiler.compile(module, variant, arch)?;
            let file = bundle::encode(&[Entry { label, code: code.clone() }]);
            // A cache that cannot be written costs the next run some seconds, nothing else.
            let _ = fs::create_dir_all(folder).is_ok_and(|()| bundle::write(&path, &file).is_ok());
            Ok(code)
        })
        .collect();
    // Of several errors the first in order, not in time.
    codes.into_iter().collect()
}

/// The name tells everything that the code depends on.
fn file_name(label: &Label, compiler: &Compiler) -> String {
    let mut hash = Hash::default();
    hash.bytes(&label.fingerprint.to_le_bytes()).text(&compiler.describe());
    format!("{}-{}-{:032x}.kernels", label.name, label.arch, hash.value())
}

/// What an earlier run left; nothing if it is not what it should be, and then it is made anew.
fn look_up(path: &Path, label: &Label) -> Option<Vec<u8>> {
    let entries = bundle::decode(&fs::read(path).ok()?).ok()?;
    entries.into_iter().find(|entry| entry.label == *label).map(|entry| entry.code)
}

fn from_file(path: &Path, arch: Arch, variants: &[(&'static Module, Variant)]) -> Result<Vec<Vec<u8>>> {
    let place = |e: Error| e.at(format_args!("{} = {}", Settings::KERNELS, path.display()));
    let entries = entries(path).map_err(place)?;
    let fitting = |code: Arch| arch.runs(code);
    if !entries.iter().any(|entry| fitting(entry.label.arch)) {
        let held = archs(&entries);
        return Err(place(Error::new(format!(
            "holds kernels for {held}; this GPU needs {arch}: make it anew, by ltm cuda compile --arch {arch}"
        ))));
    }
    variants
        .iter()
        .map(|&(module, variant)| {
            let label = Label::new(module, variant, arch);
            let same = |entry: &&Entry| entry.label.name == label.name && entry.label.defines == label.defines;
            // The nearest of those that run.
            let found = entries.iter().filter(same).filter(|e| fitting(e.label.arch)).max_by_key(|e| e.label.arch);
            match found {
                Some(entry) if entry.label.fingerprint == label.fingerprint => Ok(entry.code.clone()),
                Some(_) => Err(place(Error::new(format!(
                    "holds {} of another version of this program: make it anew, by ltm cuda compile",
                    module.name
                )))),
                None => Err(place(Error::new(format!(
                    "does not hold {} ({}) for {arch}: make it anew, by ltm cuda compile",
                    module.name, label.defines
                )))),
            }
        })
        .collect()
}

/// What a file of compiled kernels holds.
fn entries(path: &Path) -> Result<Vec<Entry>> {
    let failed = |e: std::io::Error| Error::new(format!("cannot be read: {e}"));
    // Whoever opens a pipe waits for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::new("is no regular file"));
    }
    bundle::decode(&fs::read(path).map_err(failed)?)
}

/// The architectures of these entries, in words.
fn archs(entries: &[Entry]) -> String {
    let archs: BTreeSet<Arch> = entries.iter().map(|entry| entry.label.arch).collect();
    let names: Vec<String> = archs.iter().map(ToString::to_string).collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

/// What a file of compiled kernels holds, in words.
///
/// # Errors
/// If it cannot be read or is not such a file.
pub(crate) fn describe_file(path: &Path) -> Result<String> {
    let entries = entries(path).map_err(|e| e.at(format_args!("{} = {}", Settings::KERNELS, path.display())))?;
    Ok(format!("{} kernels for {}", entries.len(), archs(&entries)))
}

/// What [`compile_file`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The compiler with its version, e.g. `NVRTC 13.0`.
    pub compiler: String,
    /// Number of compilations: modules times variants times architectures.
    pub kernels: usize,
    /// Size of the file.
    pub bytes: usize,
}

/// Compiles every variant of these modules for these GPUs into one file, some seconds of work for each GPU and module, with
/// nvcc where it is found and with NVRTC otherwise. No GPU is needed. [`Settings::kernels`] names such a file to a machine
/// that has no compiler.
///
/// # Errors
/// If there is no compiler, it refuses a kernel, or the file cannot be written. Then there is no file, or the old one.
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
    // Before the compiler works for minutes; what is there stays.
    bundle::check_place(out)?;
    let modules = super::with_own(modules);
    let jobs: Vec<_> = archs
        .iter()
        .flat_map(|&arch| modules.iter().flat_map(move |module| module.variants().map(move |v| (*module, v, arch))))
        .collect();
    let entries: Vec<Result<Entry>> = jobs
        .par_iter()
        .map(|&(module, variant, arch)| {
            let code = compiler.compile(module, variant, arch)?;
            Ok(Entry { label: Label::new(module, variant, arch), code })
        })
        .collect();
    let entries = entries.into_iter().collect::<Result<Vec<_>>>()?;
    let file = bundle::encode(&entries);
    bundle::write(out, &file)?;
    Ok(Compiled { compiler: compiler.describe(), kernels: entries.len(), bytes: file.len() })
}
