//! The memory of a buffer.

use crate::cuda::Gpu;
use crate::{Error, Result};
use std::sync::Arc;

/// Memory of a GPU, freed when dropped.
pub struct Memory {
    pub gpu: Arc<dyn Gpu>,
    /// The address; zero if there are no bytes.
    pub address: u64,
    pub bytes: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.address != 0 {
            self.gpu.free(self.address);
        }
    }
}

/// Aligned memory of this process.
pub struct Host {
    bytes: Vec<u8>,
    /// Offset of the aligned part of `bytes`.
    offset: usize,
    /// Number of bytes from this offset.
    pub capacity: usize,
}

pub const ALIGN: usize = 64;

/// Larger memory begins on a page. A processor takes a load for one that waits for an earlier store if their addresses agree
/// in the last twelve bits. An op that reads `x[i + 1]` after it wrote `y[i]` would wait if `y` began a few lines behind `x`
/// in the page, which happens by chance in an allocator's heap.
pub const PAGE: usize = 4096;

/// The alignment of memory of so many bytes.
fn alignment(capacity: usize) -> usize {
    if capacity >= 8 * PAGE { PAGE } else { ALIGN }
}

impl Host {
    pub const EMPTY: Self = Self { bytes: Vec::new(), offset: 0, capacity: 0 };

    pub fn new(capacity: usize) -> Self {
        let align = alignment(capacity);
        let bytes = vec![0; capacity + align - 1];
        let offset = bytes.as_ptr().align_offset(align);
        Self { bytes, offset, capacity }
    }

    pub fn try_new(capacity: usize) -> Result<Self> {
        // This reserves the memory only to test that it exists. `vec!` gets zero pages from the system, which use no
        // memory until they are touched; a reserved vector would have to be filled.
        let possible = capacity.checked_add(PAGE).is_some_and(|n| Vec::<u8>::new().try_reserve_exact(n).is_ok());
        if possible { Ok(Self::new(capacity)) } else { Err(Error::new(format!("cannot allocate {capacity} bytes"))) }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.offset..]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.offset..]
    }
}
