//! Files mapped into memory.

use crate::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

/// A whole file in read-only memory that begins on a page.
#[derive(Debug)]
pub struct FileMap(Mmap);

impl FileMap {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// If the file cannot be opened or is a folder.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |error: &std::io::Error| Error::io("read", path, error);
        let file = File::open(path).map_err(|error| fail(&error))?;
        if file.metadata().map_err(|error| fail(&error))?.is_dir() {
            return Err(Error::new(format!("{} is a folder, not a file", path.display())));
        }
        // SAFETY: the map is read-only and outlives its borrows. Nobody may change the file meanwhile, which no program can
        // enforce. The map is read as bytes, of which every pattern is valid; if the file is cut off, the process ends with
        // SIGBUS instead of reading foreign memory.
        unsafe { Mmap::map(&file) }.map(Self).map_err(|error| fail(&error))
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
