//! Gets the code of kernels: from a file compiled beforehand, the cache of an earlier run, or the compiler.

use super::arch::Arch;
use super::bundle::{self, Entry, Label};
use super::compile::{compile, target};
use super::libraries::{Settings, nvrtc_version};
use super::{Module, PRODUCT, Variant};
use crate::{Error, Result, file};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The code of every variant of these modules, in their order, and what compiled it: NVRTC by its version, or for a file
/// the hash of this code.
///
/// # Errors
/// If the file of compiled kernels does not fit, or there is none and NVRTC is missing or refuses a kernel.
pub(crate) fn code(
    settings: &Settings,
    gpu: Arch,
    variants: &[(&'static Module, Variant)],
) -> Result<(Vec<Vec<u8>>, String)> {
    if let Some(path) = &settings.kernels {
        let code = entries(path).and_then(|entries| from_file(entries, gpu, variants));
        let code = code.map_err(|e| at_file(path, e))?;
        let compiler = format!("compiled file {:032x}", bundle::fingerprint(&code.concat()));
        return Ok((code, compiler));
    }
    let version = nvrtc_version(settings)?;
    let arch = target(gpu, &version)?;
    let compile = |&(module, variant): &(&'static Module, Variant)| {
        let label = Label::new(module, variant, arch);
        // The name contains a hash of everything that the code depends on.
        let hash = bundle::fingerprint(format!("{:x} {version}", label.fingerprint).as_bytes());
        let name = format!("{}-{arch}-{hash:032x}.kernels", module.name);
        let path = settings.cache.as_ref().map(|folder| folder.join(name));
        let file = path.as_ref().and_then(|path| fs::read(path).ok());
        // An incomplete file counts as missing.
        if let Some([entry]) = file.as_deref().and_then(bundle::decode).as_deref() {
            return Ok(entry.code.clone());
        }
        let entry = Entry { code: compile(module, variant, arch, &version)?.0, label };
        if let (Some(folder), Some(path)) = (&settings.cache, path) {
            let file = bundle::encode(std::slice::from_ref(&entry));
            // If the cache cannot be written, the next run only takes a few seconds longer.
            let _ = fs::create_dir_all(folder).is_ok_and(|()| fs::write(path, file).is_ok());
        }
        Ok(entry.code)
    };
    // Collected first, so that the error reported does not depend on timing.
    let codes: Vec<Result<Vec<u8>>> = variants.par_iter().map(compile).collect();
    Ok((codes.into_iter().collect::<Result<_>>()?, format!("NVRTC {version}")))
}

/// The code of these variants in a file compiled beforehand.
fn from_file(entries: Vec<Entry>, arch: Arch, variants: &[(&'static Module, Variant)]) -> Result<Vec<Vec<u8>>> {
    let known = archs(&entries);
    let usable: Vec<Entry> = entries.into_iter().filter(|entry| arch.runs(entry.label.arch)).collect();
    if usable.is_empty() {
        return Err(Error::kernels(format!("holds kernels for {known}, but this GPU needs {arch}")));
    }
    let code = |&(module, variant): &(&'static Module, Variant)| {
        let label = Label::new(module, variant, arch);
        let fits = |entry: &&Entry| entry.label == Label { arch: entry.label.arch, ..label.clone() };
        // The newest architecture that this GPU runs.
        let newest = usable.iter().filter(fits).max_by_key(|entry| entry.label.arch);
        newest.map(|entry| entry.code.clone()).ok_or_else(|| {
            let (name, defines) = (module.name, &label.defines);
            Error::kernels(format!("lacks {name} ({defines}) for {arch} of this version of the program"))
        })
    };
    variants.iter().map(code).collect()
}

/// The entries of a file of compiled kernels.
fn entries(path: &Path) -> Result<Vec<Entry>> {
    bundle::decode(&file::read(path)?)
        .ok_or_else(|| Error::kernels("not a file of compiled kernels of this version of the program"))
}

fn at_file(path: &Path, error: Error) -> Error {
    error.at(format_args!("{} = {}", Settings::KERNELS, path.display()))
}

/// The architectures of these entries, for messages.
fn archs(entries: &[Entry]) -> String {
    let archs: BTreeSet<Arch> = entries.iter().map(|entry| entry.label.arch).collect();
    let names: Vec<String> = archs.iter().map(ToString::to_string).collect();
    names.join(", ")
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
    /// The compiler's lines about kernels whose registers spill to memory, which makes them slow.
    pub spills: Vec<String>,
}

/// Compiles every variant of these modules for these GPUs into one file, by NVRTC. Each GPU and module takes some seconds. No
/// GPU is needed. A machine without a compiler uses the file by [`Settings::kernels`].
///
/// # Errors
/// If NVRTC is missing or refuses a kernel, or the file cannot be written.
pub fn compile_file(modules: &[&'static Module], archs: &[Arch], settings: &Settings, out: &Path) -> Result<Compiled> {
    let version = nvrtc_version(settings)?;
    let modules = modules.iter().copied().chain([&PRODUCT]);
    let variants = modules.flat_map(|module| module.variants().map(move |variant| (module, variant)));
    let jobs: Vec<_> = variants.flat_map(|(module, v)| archs.iter().map(move |&arch| (module, v, arch))).collect();
    let compile = |&(module, variant, arch): &(&'static Module, Variant, Arch)| {
        let (code, spills) = compile(module, variant, arch, &version)?;
        Ok((Entry { code, label: Label::new(module, variant, arch) }, spills))
    };
    let compiled: Vec<Result<(Entry, Vec<String>)>> = jobs.par_iter().map(compile).collect();
    let (entries, spills): (Vec<Entry>, Vec<Vec<String>>) =
        compiled.into_iter().collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let file = bundle::encode(&entries);
    fs::write(out, &file).map_err(|e| Error::io("write", out, &e))?;
    Ok(Compiled {
        compiler: format!("NVRTC {version}"),
        kernels: entries.len(),
        bytes: file.len(),
        spills: spills.concat(),
    })
}
