//! NVIDIA's libraries, which a machine may have or not. Each is looked for before its first use: a call into one that is
//! not there would be a panic.

use crate::Result;
use cudarc::{cublaslt, driver, nvrtc};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where the CUDA backend finds what it needs beside the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Folders that hold NVRTC or cuBLASLt, for where the system's loader finds no `libnvrtc.so` or `libcublasLt.so` by
    /// itself. NVIDIA's Python packages keep them in `site-packages/nvidia/cu13/lib`.
    pub libraries: Vec<PathBuf>,
    /// A file of compiled kernels, made by [`compile_file`](super::compile_file). With it NVRTC is not needed.
    pub kernels: Option<PathBuf>,
    /// Folder for kernels that were compiled at run time. Without one they are compiled anew by every process.
    pub cache: Option<PathBuf>,
}

impl Settings {
    /// Environment variable for [`libraries`](Self::libraries), separated as in `PATH`.
    pub const LIBRARIES: &str = "LTM_CUDA_LIBRARIES";
    /// Environment variable for [`kernels`](Self::kernels).
    pub const KERNELS: &str = "LTM_CUDA_KERNELS";
    /// Environment variable for [`cache`](Self::cache); set to nothing, there is none. Unset, it is `ltm/cuda` in the
    /// user's cache folder.
    pub const CACHE: &str = "LTM_CUDA_CACHE";

    /// What the environment variables say.
    pub fn from_env() -> Self {
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = match env::var_os(Self::CACHE) {
            Some(_) => path(Self::CACHE),
            None => path("XDG_CACHE_HOME")
                .or_else(|| path("HOME").map(|home| home.join(".cache")))
                .map(|folder| folder.join("ltm/cuda")),
        };
        Self {
            libraries: env::var_os(Self::LIBRARIES).map(|list| env::split_paths(&list).collect()).unwrap_or_default(),
            kernels: path(Self::KERNELS),
            cache,
        }
    }
}

/// One of NVIDIA's libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    Driver,
    Nvrtc,
    CublasLt,
}

impl Library {
    /// Its files; one that another of them looks for comes first.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so"],
            Self::Nvrtc => &["libnvrtc-builtins.so", "libnvrtc.so"],
            Self::CublasLt => &["libcublasLt.so"],
        }
    }

    /// Whether it is there. Must be asked before it is used.
    pub fn is_present(self, settings: &Settings) -> bool {
        // The driver belongs to the system; another one would not fit to the kernel module.
        if self != Self::Driver {
            settings.libraries.iter().for_each(|folder| self.load_from(folder));
        }
        if self.is_found() {
            return true;
        }
        let roots = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
        for root in roots.chain([PathBuf::from("/usr/local/cuda")]) {
            if self != Self::Driver {
                self.load_from(&root.join("lib64"));
            }
        }
        self.is_found()
    }

    /// Whether the loader finds it by its name, which it does also if the process has it already.
    fn is_found(self) -> bool {
        // SAFETY: these open and close the library. NVIDIA's libraries do nothing when they are loaded but set up their
        // own memory; a file of that name that does worse is nothing that a process can guard against.
        unsafe {
            match self {
                Self::Driver => driver::sys::is_culib_present(),
                Self::Nvrtc => nvrtc::sys::is_culib_present(),
                Self::CublasLt => cublaslt::sys::is_culib_present(),
            }
        }
    }

    /// Loads its files that lie in `folder`, if any.
    fn load_from(self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for file in self.files() {
            let is_it = |path: &&PathBuf| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(file))
            };
            // The last: the name with the whole version, if there are links to it.
            if let Some(path) = paths.iter().rfind(is_it) {
                open(path);
            }
        }
    }

    /// The file that this process uses, once it has been used.
    pub fn path(self) -> Option<PathBuf> {
        let maps = fs::read_to_string("/proc/self/maps").ok()?;
        let file = self.files().last()?;
        let line = maps.lines().find(|line| line.contains(&format!("/{file}")))?;
        line.find('/').map(|at| PathBuf::from(&line[at..]))
    }
}

/// Keeps a library in this process, so that it is found by its name from now on.
#[cfg(unix)]
fn open(path: &Path) {
    use std::ffi::{CString, c_char, c_int, c_void};
    use std::os::unix::ffi::OsStrExt;

    // SAFETY: declared as POSIX has it.
    unsafe extern "C" {
        fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
    }
    const NOW: c_int = 2;
    if let Ok(path) = CString::new(path.as_os_str().as_bytes()) {
        // SAFETY: the path ends in zero and is only read. Whether it could be loaded shows when it is looked for; as to
        // what loading does, see `is_found`.
        unsafe { dlopen(path.as_ptr(), NOW) };
    }
}

#[cfg(not(unix))]
fn open(_path: &Path) {}

/// What a call of the driver gives, or what the driver says against it.
pub(crate) fn told<T>(result: std::result::Result<T, driver::DriverError>) -> std::result::Result<T, String> {
    result.map_err(|e| match e.error_string() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("{:?}", e.0),
    })
}

/// The version that NVRTC compiles for, e.g. (13, 0).
///
/// # Errors
/// If NVRTC is not there.
pub(crate) fn nvrtc_version(settings: &Settings) -> Result<(i32, i32)> {
    if !Library::Nvrtc.is_present(settings) {
        return Err(crate::Error::new(format!(
            "NVRTC (libnvrtc.so), which compiles the kernels, is not found: name its folder in {}, or a file of compiled \
             kernels in {}",
            Settings::LIBRARIES,
            Settings::KERNELS
        )));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there, and writes two numbers.
    unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    Ok((major, minor))
}
