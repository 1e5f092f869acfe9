//! Finds NVIDIA's libraries, which a machine may lack. Each is searched for before its first use, because cudarc panics
//! if one is missing.

use crate::{Error, Result};
use cudarc::{cublaslt, driver, nvrtc};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where the CUDA backend finds its files, other than the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Folders that hold NVRTC, cuBLASLt or NCCL, for machines whose loader does not find `libnvrtc.so`, `libcublasLt.so` or
    /// `libnccl.so.2`. The first folder that holds a library is used. NVIDIA's Python packages keep them in
    /// `site-packages/nvidia/cu13/lib`.
    pub libraries: Vec<PathBuf>,
    /// A file of compiled kernels, made by [`compile_file`](super::compile_file). It replaces NVRTC.
    pub kernels: Option<PathBuf>,
    /// Folder for kernels compiled at run time. Without it every process compiles them again.
    pub cache: Option<PathBuf>,
    /// Whether every launch is made directly, at every step, instead of capturing the launches of a step and repeating
    /// the capture. The bits are the same. Tools that watch single launches need it.
    pub direct: bool,
}

impl Settings {
    /// Environment variable for [`libraries`](Self::libraries), separated as in `PATH`.
    pub const LIBRARIES: &str = "LTM_CUDA_LIBRARIES";
    /// Environment variable for [`kernels`](Self::kernels).
    pub const KERNELS: &str = "LTM_CUDA_KERNELS";
    /// Environment variable for [`cache`](Self::cache). An empty value means no cache. Unset, the cache is `ltm/cuda` in
    /// the user's cache folder.
    pub const CACHE: &str = "LTM_CUDA_CACHE";
    /// Environment variable for [`direct`](Self::direct): `0` means no capture.
    pub const CAPTURE: &str = "LTM_CUDA_CAPTURE";

    /// Reads the environment variables.
    pub fn from_env() -> Self {
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let users = || path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
        let is_set = env::var_os(Self::CACHE).is_some();
        let folders = env::var_os(Self::LIBRARIES).unwrap_or_default();
        Self {
            libraries: env::split_paths(&folders).filter(|folder| !folder.as_os_str().is_empty()).collect(),
            kernels: path(Self::KERNELS),
            cache: if is_set { path(Self::CACHE) } else { users().map(|folder| folder.join("ltm/cuda")) },
            direct: env::var_os(Self::CAPTURE).is_some_and(|value| value == "0"),
        }
    }
}

/// One of NVIDIA's libraries whose folder the user may have to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    Nvrtc,
    CublasLt,
}

impl Library {
    fn name(self) -> &'static str {
        match self {
            Self::Nvrtc => "libnvrtc.so",
            Self::CublasLt => "libcublasLt.so",
        }
    }

    /// Loads the library. Must succeed before any call into it.
    ///
    /// # Errors
    /// One line that says what was found instead of the library.
    pub fn find(self, settings: &Settings) -> std::result::Result<(), String> {
        let mut refused = Vec::new();
        for folder in &settings.libraries {
            match self.load_from(folder) {
                Ok(()) => break,
                Err(why) => refused.push(why),
            }
        }
        if !self.is_found() {
            let roots = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
            for root in roots.chain([PathBuf::from("/usr/local/cuda")]) {
                // The user did not name these folders, so do not report their errors.
                let _ = self.load_from(&root.join("lib64"));
            }
        }
        if self.is_found() {
            return Ok(());
        }
        let nowhere = || format!("{} of CUDA 12 or 13 is not found", self.name());
        Err(if refused.is_empty() { nowhere() } else { refused.join("; ") })
    }

    /// Whether the loader finds the library by its name, which includes libraries that the process has already loaded.
    fn is_found(self) -> bool {
        // SAFETY: as in `has_driver`.
        unsafe {
            match self {
                Self::Nvrtc => nvrtc::sys::is_culib_present(),
                Self::CublasLt => cublaslt::sys::is_culib_present(),
            }
        }
    }

    /// Loads the library from `folder`, and first the libraries that it loads by name.
    fn load_from(self, folder: &Path) -> std::result::Result<(), String> {
        let entries = fs::read_dir(folder).map_err(|e| format!("{} cannot be read: {e}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        // The last one has the full version in its name; the others are links to it.
        let find = |file: &str| {
            paths.iter().rfind(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(file)))
        };
        if let (Self::Nvrtc, Some(path)) = (self, find("libnvrtc-builtins.so")) {
            load(path)?;
        }
        load(find(self.name()).ok_or_else(|| format!("{} holds no {}", folder.display(), self.name()))?)
    }

    /// The file that this process uses, once the library is found; `None` if the system does not tell.
    ///
    /// # Errors
    /// If there are two. The loader knows a file by the name in it, such as `libnvrtc.so.13`, but cudarc asks for
    /// `libnvrtc.so` first. If that is another file on the loader's path, it would be used in place of the one that
    /// the user named.
    pub fn file(self) -> Result<Option<PathBuf>> {
        // SAFETY: the library was found. This loads the copy that all calls go to.
        unsafe {
            match self {
                Self::Nvrtc => nvrtc::sys::culib(),
                Self::CublasLt => cublaslt::sys::culib(),
            }
        };
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
        let is_this = |path: &&Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(self.name()));
        let files: BTreeSet<&Path> = paths.filter(is_this).collect();
        let mut files = files.into_iter();
        match (files.next(), files.next()) {
            (Some(one), Some(other)) => Err(Error::device(format!(
                "two copies of {name} are loaded, {} and {}: for the one on the loader's path leave the other's folder out \
                 of {variable}; for the other put a folder with a link {name} to it first in LD_LIBRARY_PATH",
                one.display(),
                other.display(),
                name = self.name(),
                variable = Settings::LIBRARIES
            ))),
            (file, _) => Ok(file.map(PathBuf::from)),
        }
    }
}

/// Whether the loader finds a driver. Only the system's own copy fits its kernel module, so no folder is searched.
pub(crate) fn has_driver() -> bool {
    // SAFETY: this opens and closes the library. When loaded, NVIDIA's libraries only set up their own memory.
    unsafe { driver::sys::is_culib_present() }
}

/// Keeps a library loaded in this process, so that later loads by name find it.
pub(crate) fn load(path: &Path) -> std::result::Result<(), String> {
    // SAFETY: as in `has_driver`.
    match unsafe { libloading::Library::new(path) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        // The source error is the loader's message, which names the file.
        Err(e) => Err(std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string)),
    }
}

/// The result of a call of the driver, with the driver's text as the error.
pub(crate) fn told<T>(result: std::result::Result<T, driver::DriverError>) -> std::result::Result<T, String> {
    result.map_err(|e| match e.error_string() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", e.0),
    })
}

/// The version of CUDA that NVRTC belongs to, e.g. `13.0`.
///
/// # Errors
/// If NVRTC is missing, or two copies of it are loaded.
pub(crate) fn nvrtc_version(settings: &Settings) -> Result<String> {
    Library::Nvrtc.find(settings).map_err(|why| {
        let (libraries, kernels) = (Settings::LIBRARIES, Settings::KERNELS);
        Error::new(format!(
            "NVRTC, which compiles the kernels, is missing: {why}: name its folder in {libraries}, or a file of compiled \
             kernels in {kernels}"
        ))
    })?;
    Library::Nvrtc.file()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library was found. It writes two numbers.
    unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    Ok(format!("{major}.{minor}"))
}
