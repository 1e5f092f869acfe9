//! Files as memory.

use crate::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;

/// A whole file in memory, to be read only. It begins on a page.
#[derive(Debug)]
pub struct FileMap(Mmap);

impl FileMap {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// If it cannot be opened or is no file.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |error: &std::io::Error| Error::io("read", path, error);
        let file = File::open(path).map_err(|error| fail(&error))?;
        if file.metadata().map_err(|error| fail(&error))?.is_dir() {
            return Err(Error::new(format!("{} is a folder, not a file of tokens", path.display())));
        }
        // SAFETY: the map is read-only and lives as long as what borrows from it. Nobody may change the file meanwhile, which no
        // program can enforce; what is read through the map are bytes, of which every pattern is a value, and a file that is
        // cut off ends the process with SIGBUS instead of reading foreign memory.
        unsafe { Mmap::map(&file) }.map(Self).map_err(|error| fail(&error))
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
