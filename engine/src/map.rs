//! Files mapped into memory.

use crate::{Error, Result, file};
pub use memmap2::Mmap;
use std::path::Path;

/// Maps the file at `path` into read-only memory that begins on a page.
///
/// # Errors
/// As [`file::open`].
pub fn open(path: &Path) -> Result<Mmap> {
    let file = file::open(path)?;
    // SAFETY: the map is read-only and outlives its borrows. Nobody may change the file meanwhile, which no program can
    // enforce. The map is read as bytes, of which every pattern is valid; if the file is cut off, the process ends with
    // SIGBUS instead of reading foreign memory.
    unsafe { Mmap::map(&file) }.map_err(|error| Error::io("read", path, &error))
}
