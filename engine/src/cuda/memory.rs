use super::Gpu;
use crate::Result;
use std::fmt;
use std::sync::Arc;

/// A piece of a GPU's memory, freed with its owner.
pub struct Memory {
    gpu: Arc<dyn Gpu>,
    address: u64,
    bytes: usize,
}

impl Memory {
    /// Zeros.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(gpu: &Arc<dyn Gpu>, bytes: usize) -> Result<Self> {
        let address = if bytes == 0 { 0 } else { gpu.alloc(bytes)? };
        Ok(Self { gpu: gpu.clone(), address, bytes })
    }

    /// What stands for memory that could not be had: reads as zeros, forgets what is written, cannot be computed with.
    pub fn missing(gpu: &Arc<dyn Gpu>, bytes: usize) -> Self {
        Self { gpu: gpu.clone(), address: 0, bytes }
    }

    /// Size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Device address; zero where there is no memory.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The device that it belongs to.
    pub fn gpu(&self) -> &Arc<dyn Gpu> {
        &self.gpu
    }

    /// Overwrites the first bytes with the host's.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&mut self, from: &[u8]) {
        assert!(from.len() <= self.bytes, "{} bytes do not fit into {}", from.len(), self.bytes);
        if self.address != 0 && !from.is_empty() {
            self.gpu.write(self.address, from);
        }
    }

    /// Copies the first bytes to the host, after everything that was launched before.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn read(&self, to: &mut [u8]) {
        assert!(to.len() <= self.bytes, "{} bytes of {}", to.len(), self.bytes);
        if self.address == 0 {
            to.fill(0);
        } else if !to.is_empty() {
            self.gpu.read(self.address, to);
        }
    }

    /// Copies the first `bytes` bytes of another piece of the same device.
    ///
    /// # Panics
    /// If one of the pieces is shorter.
    pub fn copy_from(&mut self, from: &Self, bytes: usize) {
        assert!(bytes <= self.bytes && bytes <= from.bytes, "{bytes} bytes of {} into {}", from.bytes, self.bytes);
        if self.address != 0 && from.address != 0 && bytes > 0 {
            self.gpu.copy(from.address, self.address, bytes);
        }
    }

    /// Sets the first `bytes` bytes to zero.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn clear(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes, "{bytes} bytes of {}", self.bytes);
        if self.address != 0 && bytes > 0 {
            self.gpu.clear(self.address, bytes);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.address != 0 {
            self.gpu.free(self.address);
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes at {:#x})", self.bytes, self.address)
    }
}
