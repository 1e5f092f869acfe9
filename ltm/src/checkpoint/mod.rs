//! Crash-safe checkpoints.
//!
//! A run folder holds `checkpoints/step-00001234/`: the files that the caller names and a `manifest.json` with their
//! sizes and SHA-256 digests. A checkpoint is written under a temporary name beside its final one, every file is
//! synced, the manifest comes last, the folder is synced and then renamed, and the rename is synced too. So a folder
//! with the final name is always complete, even after SIGKILL or power loss. If a disk damages it later, the digests
//! show it, and [`latest_valid`] falls back to the previous checkpoint.

#[cfg(test)]
mod tests;
mod write;

pub use write::{FileWriter, write, write_atomic};

use crate::hash::sha256_files;
use crate::json;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Prefix of temporary and discarded checkpoints; the next writer removes them.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// The file that is written last and has the digests of the others.
const MANIFEST: &str = "manifest.json";

/// Version of the manifest's layout.
const VERSION: u64 = 1;

/// A file of a checkpoint, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name within the checkpoint's folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 digest in hexadecimal.
    pub sha256: String,
}

/// A checkpoint whose files match `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Why a checkpoint cannot be used.
enum Flaw {
    /// Its files are damaged. The previous checkpoint may be intact.
    Damage(Error),
    /// Unknown: its files cannot be read now, or a newer program wrote them.
    Unknown(Error),
}

impl Flaw {
    fn reading(name: &str, error: &io::Error) -> Self {
        let gone = error.kind() == ErrorKind::NotFound;
        let error = Error::new(format!("cannot read {name}: {error}"));
        if gone { Self::Damage(error) } else { Self::Unknown(error) }
    }

    fn at(self, place: impl Display) -> Self {
        match self {
            Self::Damage(error) => Self::Damage(error.at(place)),
            Self::Unknown(error) => Self::Unknown(error.at(place)),
        }
    }
}

/// The newest checkpoint of a run whose manifest, sizes and digests all agree, `None` if it has no checkpoint yet; and
/// for each newer, damaged checkpoint a line that describes the damage.
///
/// # Errors
/// If there are checkpoints and none is intact, or the folder cannot be listed. Also if a possibly intact checkpoint
/// cannot be read, because a run that continues from an older one would remove it.
pub fn latest_valid(run: &Path) -> Result<(Option<Checkpoint>, Vec<String>)> {
    'list: loop {
        let mut warnings = Vec::new();
        for step in steps(run)?.into_iter().rev() {
            match Checkpoint::verify(run, step) {
                Ok(checkpoint) => return Ok((Some(checkpoint), warnings)),
                // A running session has removed it, and has newer ones.
                Err(_) if !folder_of(run).join(folder_name(step)).exists() => continue 'list,
                Err(Flaw::Damage(error)) => warnings.push(format!("skipped a damaged checkpoint: {error}")),
                Err(Flaw::Unknown(error)) => {
                    return Err(error.hint("move this checkpoint away to use the previous one"));
                }
            }
        }
        return match warnings.first() {
            Some(first) => Err(Error::new(format!("{} has no intact checkpoint: {first}", run.display()))),
            None => Ok((None, warnings)),
        };
    }
}

/// The checkpoint of a run at a step, verified.
///
/// # Errors
/// If there is none, or it is damaged or cannot be read; the error names the file and the reason.
pub fn at_step(run: &Path, step: u64) -> Result<Checkpoint> {
    Checkpoint::verify(run, step).map_err(|(Flaw::Damage(error) | Flaw::Unknown(error))| error)
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

    /// Reads the manifest of a step and every file that it names.
    fn verify(run: &Path, step: u64) -> std::result::Result<Self, Flaw> {
        let folder = folder_of(run).join(folder_name(step));
        let checkpoint = fs::read(folder.join(MANIFEST))
            .map_err(|error| Flaw::reading(MANIFEST, &error))
            .and_then(|text| Self::from_manifest(&text, &folder, step).map_err(|flaw| flaw.at(MANIFEST)))
            .and_then(|checkpoint| {
                checkpoint.files.iter().try_for_each(|file| file.verify(&folder)).map(|()| checkpoint)
            });
        checkpoint.map_err(|flaw| flaw.at(folder.display()))
    }

    /// The manifest, without a check of the files.
    fn from_manifest(text: &[u8], folder: &Path, step: u64) -> std::result::Result<Self, Flaw> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let damage = |message: String| Err(Flaw::Damage(Error::new(message)));
        let version = json::from_bytes(text).map_err(Flaw::Damage).map(|found: Versioned| found.version)?;
        if version != VERSION {
            return Err(Flaw::Unknown(Error::new(format!("version {version}, this program reads version {VERSION}"))));
        }
        let found = Self { folder: folder.into(), ..json::from_bytes(text).map_err(Flaw::Damage)? };
        if found.step != step {
            return damage(format!("its step is {}, but its folder is for step {step}", found.step));
        }
        match found.files.iter().find(|file| !is_plain(&file.name)) {
            Some(file) => damage(format!("{:?} cannot name a file of a checkpoint", file.name)),
            None => Ok(found),
        }
    }
}

impl FileEntry {
    fn verify(&self, folder: &Path) -> std::result::Result<(), Flaw> {
        let Self { name, bytes, sha256 } = self;
        let path = folder.join(name);
        let size = fs::metadata(&path).map_err(|error| Flaw::reading(name, &error))?.len();
        // Checked first, because it recognises files that are not its own.
        let found = sha256_files(&[path]).map_err(Flaw::Unknown)?;
        let damage = |message: String| Err(Flaw::Damage(Error::new(message)));
        if size != *bytes {
            return damage(format!("{name} has {size} bytes, its manifest says {bytes}"));
        }
        if found != *sha256 {
            return damage(format!("{name} has changed: its SHA-256 differs from the manifest's"));
        }
        Ok(())
    }
}

/// Whether a name stays within its folder and is not hidden.
fn is_plain(name: &str) -> bool {
    !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn folder_of(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}
