//! NVIDIA's libraries, which a machine may have or not. Each is looked for before its first use: a call into one that is
//! not there would be a panic.

use super::symbols;
use crate::Result;
use cudarc::{cublaslt, driver, nvrtc};
use std::io::{Read as _, Seek as _, SeekFrom};
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
            libraries: env::split_paths(&env::var_os(Self::LIBRARIES).unwrap_or_default())
                .filter(|folder| !folder.as_os_str().is_empty())
                .collect(),
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

    fn name(self) -> &'static str {
        match self {
            Self::Driver => "libcuda.so.1",
            Self::Nvrtc => "libnvrtc.so",
            Self::CublasLt => "libcublasLt.so",
        }
    }

    /// Makes it ready for use, without which no call into it may be.
    ///
    /// # Errors
    /// What was found instead, in words.
    pub fn find(self, settings: &Settings) -> std::result::Result<(), String> {
        let mut refused = Vec::new();
        match self {
            // The driver belongs to the system; another one would not fit to the kernel module.
            Self::Driver => refused.extend(open(Path::new(self.name())).err().filter(|_| !self.is_absent())),
            _ => refused.extend(settings.libraries.iter().filter_map(|folder| self.load_from(folder).err())),
        }
        if !self.is_found() && self != Self::Driver {
            let roots = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
            for root in roots.chain([PathBuf::from("/usr/local/cuda")]) {
                // Nobody has asked for these.
                let _ = self.load_from(&root.join("lib64"));
            }
        }
        if !self.is_found() {
            return Err(match (refused.is_empty(), settings.libraries.is_empty() || self == Self::Driver) {
                (false, _) => refused.join("; "),
                (true, true) => format!("{} is not found", self.name()),
                (true, false) => {
                    format!("{} is of a version that is not known here, as CUDA 12 and 13 are", self.name())
                }
            });
        }
        let first = match self {
            // Later ones may not be there where it is old, of which there is more to be said.
            Self::Driver => &symbols::DRIVER[..2],
            Self::Nvrtc => &symbols::NVRTC,
            Self::CublasLt => &symbols::CUBLAS_LT,
        };
        self.check_symbols(first)
    }

    /// Whether it has these functions: a call of one that it has not would be a panic. It must have been found.
    pub fn check_symbols(self, names: &[&str]) -> std::result::Result<(), String> {
        // SAFETY: the library is there. What is found under a name is not looked at.
        let has = |name: &&&str| unsafe {
            let library = match self {
                Self::Driver => driver::sys::culib(),
                Self::Nvrtc => nvrtc::sys::culib(),
                Self::CublasLt => cublaslt::sys::culib(),
            };
            library.get::<*const ()>(name.as_bytes()).is_ok()
        };
        match names.iter().find(|name| !has(name)) {
            None => Ok(()),
            Some(name) => {
                let place = self.path().map_or_else(|| self.name().into(), |path| path.display().to_string());
                Err(format!("{place} has no function {name}, so it is not NVIDIA's, or is damaged"))
            }
        }
    }

    /// Whether the loader knows no file of its name at all.
    pub fn is_absent(self) -> bool {
        // Where there is none for the system, or the loader has other words, nothing more is known.
        let says_so = |e: String| !cfg!(target_os = "linux") || e.contains(self.name()) && e.contains("No such file");
        !self.is_found() && open(Path::new(self.name())).is_err_and(says_so)
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

    /// Loads its files that lie in `folder`.
    fn load_from(self, folder: &Path) -> std::result::Result<(), String> {
        let entries = fs::read_dir(folder).map_err(|e| format!("{} cannot be read: {e}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for file in self.files() {
            // With a version or without.
            let is_version = |text: &str| text.chars().all(|c| c == '.' || c.is_ascii_digit());
            let is_it = |path: &&PathBuf| {
                let name = path.file_name().and_then(|name| name.to_str());
                name.and_then(|name| name.strip_prefix(file)).is_some_and(is_version)
            };
            // The last: the name with the whole version, if there are links to it.
            match paths.iter().rfind(is_it) {
                Some(path) => open_whole(path)?,
                None if *file == self.name() => return Err(format!("{} holds no {file}", folder.display())),
                None => {}
            }
        }
        Ok(())
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
///
/// # Errors
/// What the loader says.
#[cfg(unix)]
fn open(path: &Path) -> std::result::Result<(), String> {
    use std::ffi::{CStr, CString, c_char, c_int, c_void};
    use std::os::unix::ffi::OsStrExt;

    // SAFETY: declared as POSIX has it.
    unsafe extern "C" {
        fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
        fn dlerror() -> *const c_char;
    }
    const NOW: c_int = 2;
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: the path ends in zero and is only read; as to what loading does, see `is_found`. The loader's text is this
    // thread's and stays until its next call.
    unsafe {
        if !dlopen(name.as_ptr(), NOW).is_null() {
            return Ok(());
        }
        let said = dlerror();
        Err(if said.is_null() {
            "it cannot be loaded".into()
        } else {
            CStr::from_ptr(said).to_string_lossy().into_owned()
        })
    }
}

#[cfg(not(unix))]
fn open(path: &Path) -> std::result::Result<(), String> {
    Err(format!("{} cannot be loaded on this system", path.display()))
}

/// The same unless its end is missing, as after a copy that was broken off: reading what is not there would kill the process.
fn open_whole(path: &Path) -> std::result::Result<(), String> {
    let failed = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let bytes = match fs::metadata(path).map_err(failed)? {
        file if file.is_file() => file.len(),
        // Whoever opens a pipe waits for its other end.
        _ => return Err(format!("{} is no regular file", path.display())),
    };
    let mut file = fs::File::open(path).map_err(failed)?;
    let mut header = [0; 64];
    if bytes < header.len() as u64 {
        return Err(format!("{} is cut off: it has {bytes} bytes; copy it again", path.display()));
    }
    file.read_exact(&mut header).map_err(failed)?;
    // The table of sections is what an object file of 64 bits ends with as a rule; the last is not all zeros.
    let number =
        |at: usize, n: usize| header[at..at + n].iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    let (section, sections) = (number(0x3a, 2), number(0x3c, 2));
    let end = number(0x28, 8).saturating_add(section * sections);
    if header.starts_with(b"\x7fELF\x02") && sections > 0 {
        if end > bytes {
            return Err(format!("{} is cut off: it has {bytes} bytes of {end}; copy it again", path.display()));
        }
        let mut last = vec![0; section as usize];
        file.seek(SeekFrom::Start(end - section)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
        if last.iter().all(|&byte| byte == 0) {
            return Err(format!("{} ends in zeros, as if a copy was broken off: copy it again", path.display()));
        }
    }
    open(path)
}

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
    Library::Nvrtc.find(settings).map_err(|why| {
        crate::Error::new(format!(
            "NVRTC, which compiles the kernels, is missing: {why}: name its folder in {}, or a file of compiled kernels in {}",
            Settings::LIBRARIES,
            Settings::KERNELS
        ))
    })?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there, and writes two numbers.
    unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    Ok((major, minor))
}
