//! Which texts a run has learnt from.

use super::Run;
use super::record::{Data, DataFile, digest};
use engine::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The files that a run has learnt from, in whole or in part. They are known by their bytes, wherever they lie now; a text that
/// was prepared, compressed or cut since then is another file.
#[derive(Clone, Debug)]
pub struct Learnt {
    files: Vec<DataFile>,
    /// Of a run without records: where they lay.
    paths: Vec<PathBuf>,
}

impl Learnt {
    /// What the records of `run` say.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn of(run: &Run) -> Result<Self> {
        let records = Data::recorded(run.path())?;
        let paths = run.config().data.paths.iter().filter(|_| records.is_none());
        let paths = paths.filter_map(|path| path.canonicalize().ok()).collect();
        let files = records.unwrap_or_default().into_iter().flat_map(|data| data.files).filter(|f| f.learnt).collect();
        Ok(Self { files, paths })
    }

    /// Whether one of `files` is among them.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn has(&self, files: &[impl AsRef<Path>]) -> Result<bool> {
        for path in files.iter().map(AsRef::as_ref) {
            let size = fs::metadata(path).map_err(|e| Error::io("read", path, &e))?.len();
            let mut alike = self.files.iter().filter(|file| file.bytes == size).peekable();
            // Only what may be the same is read.
            if alike.peek().is_some() {
                let (sha256, _) = digest(path)?;
                if alike.any(|file| file.sha256 == sha256) {
                    return Ok(true);
                }
            }
            if path.canonicalize().is_ok_and(|path| self.paths.contains(&path)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
