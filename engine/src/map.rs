//! Files mapped into memory.

use crate::{Error, Result};
pub use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// Maps the file at `path` into read-only memory that begins on a page.
///
/// # Errors
/// If the file cannot be opened or is a folder.
pub fn open(path: &Path) -> Result<Mmap> {
    let fail = |error: std::io::Error| Error::io("read", path, &error);
    let file = File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_dir() {
        return Err(Error::new(format!("{} is a folder, not a file", path.display())));
    }
    // SAFETY: the map is read-only and outlives its borrows. Nobody may change the file meanwhile, which no program can
    // enforce. The map is read as bytes, of which every pattern is valid; if the file is cut off, the process ends with
    // SIGBUS instead of reading foreign memory.
    unsafe { Mmap::map(&file) }.map_err(fail)
}
