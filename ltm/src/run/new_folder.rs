//! A place for a new run.

use super::Run;
use super::folder::METRICS;
use crate::checkpoint;
use engine::{Error, Result};
use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A place where a new run can begin.
#[derive(Clone, Debug)]
pub struct NewFolder {
    path: PathBuf,
    /// Whether the first free name of `path`, `path-2`, `path-3`, … is the folder's.
    numbered: bool,
}

impl NewFolder {
    /// Checks whether a run can be created at `path`.
    ///
    /// # Errors
    /// If there is already a run or anything else.
    pub fn at(path: &Path) -> Result<Self> {
        Run::refuse_existing(path)?;
        let new = Self { path: path.into(), numbered: false };
        let entries = match fs::read_dir(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(new),
            entries => entries.map_err(|e| Error::io("use as a run folder", path, &e))?,
        };
        // An interrupted creation may leave temporary files, and metrics without a line.
        let is_left = |entry: &DirEntry| match entry.file_name() {
            name if name == METRICS => entry.metadata().is_ok_and(|meta| meta.len() == 0),
            name => name.to_string_lossy().starts_with(checkpoint::TEMPORARY),
        };
        if !entries.flatten().all(|entry| is_left(&entry)) {
            let path = path.display();
            return Err(Error::usage(format!("{path} is not empty and is not a run: name a new folder")));
        }
        Ok(new)
    }

    /// The folder `base`, or the first of `base-2`, `base-3`, … that does not exist when the run is made.
    pub fn numbered(base: impl Into<PathBuf>) -> Self {
        Self { path: base.into(), numbered: true }
    }

    /// Makes the folder, unless it is there and empty.
    pub(super) fn make(&self) -> Result<PathBuf> {
        let Self { path, numbered } = self;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, &e))?;
        }
        for number in 1u32.. {
            let name = if number == 1 { path.clone() } else { PathBuf::from(format!("{}-{number}", path.display())) };
            match fs::create_dir(&name) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists && *numbered => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => return Self::at(&name).map(|_| name),
                Err(e) => return Err(Error::io("create", &name, &e)),
                Ok(()) => return Ok(name),
            }
        }
        unreachable!("one of the names is free")
    }
}
