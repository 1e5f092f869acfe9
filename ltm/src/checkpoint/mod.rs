//! Crash-safe checkpoints.
//!
//! A run folder holds `checkpoints/step-00001234/`: the files that the caller names and a `manifest.json` with their
//! sizes and SHA-256 digests. A checkpoint is written under a temporary name beside its final one, every file is synced,
//! the manifest comes last, the folder is synced and then renamed, and the rename is synced too. So whatever happens,
//! including SIGKILL and power loss at any moment, a folder of the final name is complete; and should a disk damage it
//! later, the digests tell, and [`latest_valid`] falls back to the one before.

#[cfg(test)]
mod tests;
mod write;

pub use write::{FileWriter, write, write_atomic};

use crate::hash::sha256_files;
use crate::json;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Prefix of what is not, or no longer, a checkpoint; the next writer removes it.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// The file that is written last and vouches for the others.
const MANIFEST: &str = "manifest.json";

/// Version of the manifest's layout.
const VERSION: u64 = 1;

/// A file of a checkpoint, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name within the checkpoint's folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 digest in hexadecimal.
    pub sha256: String,
}

/// A checkpoint, as `manifest.json` has it, whose files have been found to be what that says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    version: u64,
    /// The slow step after which it was taken.
    pub step: u64,
    /// Its files, in the order written, without the manifest.
    pub files: Vec<FileEntry>,
    /// Its folder.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// The newest checkpoint of a run whose manifest, sizes and digests all agree, `None` if it has no checkpoint yet; and one
/// line for each newer one that was skipped, saying why.
///
/// # Errors
/// If there are checkpoints and none is whole, or their folder cannot be listed.
pub fn latest_valid(run: &Path) -> Result<(Option<Checkpoint>, Vec<String>)> {
    let mut warnings = Vec::new();
    for step in steps(run)?.into_iter().rev() {
        match at_step(run, step) {
            Ok(checkpoint) => return Ok((Some(checkpoint), warnings)),
            Err(error) => warnings.push(format!("skipped a damaged checkpoint: {error}")),
        }
    }
    match warnings.first() {
        Some(first) => Err(Error::new(format!("{} has no checkpoint that is whole: {first}", run.display()))),
        None => Ok((None, warnings)),
    }
}

/// The checkpoint of a run at a step, verified.
///
/// # Errors
/// If there is none, or it is damaged: which file, and how.
pub fn at_step(run: &Path, step: u64) -> Result<Checkpoint> {
    let folder = folder_of(run).join(folder_name(step));
    Checkpoint::verify(&folder, step).map_err(|e| e.at(folder.display()))
}

/// The steps at which a run has a checkpoint, valid or not, ascending. Temporaries and foreign names are not counted.
///
/// # Errors
/// If the folder exists and cannot be listed.
pub fn steps(run: &Path) -> Result<Vec<u64>> {
    let folder = folder_of(run);
    let cannot_list = |e| Error::io("list", &folder, &e);
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(cannot_list)?,
    };
    let mut steps = Vec::new();
    for entry in entries {
        let name = entry.map_err(cannot_list)?.file_name();
        let step = name.to_str().and_then(|n| n.strip_prefix("step-")).and_then(|digits| digits.parse().ok());
        steps.extend(step.filter(|&step| name == *folder_name(step)));
    }
    steps.sort_unstable();
    Ok(steps)
}

impl Checkpoint {
    /// One of its files.
    pub fn entry(&self, name: &str) -> Result<&FileEntry> {
        let missing = || Error::new(format!("{}: the checkpoint has no file {name:?}", self.folder.display()));
        self.files.iter().find(|file| file.name == name).ok_or_else(missing)
    }

    /// The path of one of its files.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        self.entry(name).map(|file| self.folder.join(&file.name))
    }

    /// Reads the manifest in `folder` and every file that it names.
    fn verify(folder: &Path, step: u64) -> Result<Self> {
        let text = fs::read(folder.join(MANIFEST)).map_err(|e| cannot_read(MANIFEST, &e))?;
        let checkpoint = Self::from_manifest(&text, folder, step).map_err(|e| e.at(MANIFEST))?;
        for FileEntry { name, bytes, sha256 } in &checkpoint.files {
            let path = folder.join(name);
            let size = fs::metadata(&path).map_err(|e| cannot_read(name, &e))?.len();
            // First, for it knows what is no file of its own.
            let found = sha256_files(&[path])?;
            if size != *bytes {
                return Err(Error::new(format!("{name} has {size} bytes, its manifest says {bytes}")));
            }
            if found != *sha256 {
                return Err(Error::new(format!(
                    "{name} is not what was written: its SHA-256 differs from the manifest's"
                )));
            }
        }
        Ok(checkpoint)
    }

    /// What a manifest says; the files are not looked at.
    fn from_manifest(text: &[u8], folder: &Path, step: u64) -> Result<Self> {
        let found = Self { folder: folder.into(), ..json::from_bytes(text)? };
        if found.version != VERSION {
            return Err(Error::new(format!("version {}, this program reads version {VERSION}", found.version)));
        }
        if found.step != step {
            return Err(Error::new(format!("it is of step {}, its folder of step {step}", found.step)));
        }
        if let Some(file) = found.files.iter().find(|file| !is_plain(&file.name)) {
            return Err(Error::new(format!("{:?} cannot name a file of a checkpoint", file.name)));
        }
        Ok(found)
    }
}

/// Whether a name stays within its folder and is not hidden.
fn is_plain(name: &str) -> bool {
    !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn cannot_read(name: &str, error: &std::io::Error) -> Error {
    Error::new(format!("cannot read {name}: {error}"))
}

fn folder_of(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}
