//! Crash-safe checkpoints.
//!
//! A run folder holds `checkpoints/step-00001234/`: the files that the caller names and a `manifest.json` with their
//! sizes and SHA-256 digests. A checkpoint is written under a temporary name beside its final one, every file is synced,
//! the manifest comes last, the folder is synced and then renamed, and the rename is synced too. So whatever happens,
//! including SIGKILL and power loss at any moment, a folder of the final name is complete; and should a disk damage it
//! later, the digests tell, and [`latest_valid`] falls back to the one before.

mod manifest;
mod write;

pub use manifest::{Checkpoint, FileEntry};
pub use write::{FileWriter, Written, write, write_atomic};

use engine::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Prefix of what is not, or no longer, a checkpoint; the next writer removes it.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// The newest checkpoint that is whole.
#[derive(Debug)]
pub struct Latest {
    /// `None` if the run has none.
    pub checkpoint: Option<Checkpoint>,
    /// One line for each newer checkpoint that was skipped, saying why.
    pub warnings: Vec<String>,
}

/// Finds the newest checkpoint of a run whose manifest, sizes and digests all agree. A run without the folder has none.
///
/// # Errors
/// If the folder cannot be listed.
pub fn latest_valid(run: &Path) -> Result<Latest> {
    let mut warnings = Vec::new();
    for step in steps(run)?.into_iter().rev() {
        match at_step(run, step) {
            Ok(checkpoint) => return Ok(Latest { checkpoint: Some(checkpoint), warnings }),
            Err(error) => warnings.push(format!("skipped a damaged checkpoint: {error}")),
        }
    }
    Ok(Latest { checkpoint: None, warnings })
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
    let entries = match std::fs::read_dir(&folder) {
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

fn folder_of(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

#[cfg(test)]
mod tests;
