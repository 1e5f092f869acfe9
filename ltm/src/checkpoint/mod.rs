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

use crate::hash::sha256_file;
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
struct Flaw {
    error: Error,
    /// Whether its files are damaged, so that the previous checkpoint is the best there is. Else they cannot be read
    /// now, or a newer program wrote them.
    is_damage: bool,
}

impl Flaw {
    fn damage(error: Error) -> Self {
        Self { error, is_damage: true }
    }

    fn unknown(error: Error) -> Self {
        Self { error, is_damage: false }
    }

    fn reading(name: &str, error: &io::Error) -> Self {
        // Missing, or something else in its place.
        let is_damage =
            matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory);
        Self { error: Error::new(format!("cannot read {name}: {error}")), is_damage }
    }

    fn at(self, place: impl Display) -> Self {
        Self { error: self.error.at(place), ..self }
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
                Err(_) if is_gone(run, step) => continue 'list,
                Err(Flaw { error, is_damage: true }) => {
                    warnings.push(format!("skipped a damaged checkpoint: {error}"));
                }
                Err(Flaw { error, .. }) => return Err(error.hint("move this checkpoint away to use the previous one")),
            }
        }
        return match warnings.first() {
            Some(first) => Err(Error::new(format!("{} has no intact checkpoint; the newest: {first}", run.display()))),
            None => Ok((None, warnings)),
        };
    }
}

/// The checkpoint of a run at a step, verified.
///
/// # Errors
/// If there is none, or it is damaged or cannot be read; the error names the file and the reason.
pub fn at_step(run: &Path, step: u64) -> Result<Checkpoint> {
    Checkpoint::verify(run, step).map_err(|flaw| flaw.error)
}

/// Whether a run has no checkpoint of a step. One that cannot be read is not gone.
pub(crate) fn is_gone(run: &Path, step: u64) -> bool {
    let found = fs::symlink_metadata(folder_of(run).join(folder_name(step)));
    found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
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
        let damage = |message: String| Err(Flaw::damage(Error::new(message)));
        let version = json::from_bytes(text).map_err(Flaw::damage).map(|found: Versioned| found.version)?;
        if version != VERSION {
            return Err(Flaw::unknown(Error::new(format!("version {version}, this program reads version {VERSION}"))));
        }
        let found = Self { folder: folder.into(), ..json::from_bytes(text).map_err(Flaw::damage)? };
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
        let meta = fs::metadata(&path).map_err(|error| Flaw::reading(name, &error))?;
        let damage = |message: String| Err(Flaw::damage(Error::new(message)));
        if !meta.is_file() {
            return damage(format!("{name} is not a regular file"));
        }
        let size = meta.len();
        // Before the size is compared: a Git LFS pointer is no damage.
        let found = sha256_file(&path).map_err(Flaw::unknown)?;
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
