use super::Gpu;
use crate::Result;
use std::fmt;
use std::sync::Arc;

/// Memory of a GPU, freed when dropped.
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

    /// Size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Device address; zero without bytes.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Overwrites the first bytes with the host's.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&mut self, from: &[u8]) {
        self.check(from.len());
        if !from.is_empty() {
            self.gpu.write(self.address, from);
        }
    }

    /// Copies the first bytes to the host, after everything that was launched before.
    ///
    /// # Errors
    /// If the device has failed, at any time before.
    ///
    /// # Panics
    /// If `to` is longer than the memory.
    pub fn read(&self, to: &mut [u8]) -> Result<()> {
        self.check(to.len());
        if to.is_empty() { Ok(()) } else { self.gpu.read(self.address, to) }
    }

    /// Copies the first `bytes` bytes of other memory of the same device.
    ///
    /// # Panics
    /// If one of the two is shorter.
    pub fn copy_from(&mut self, from: &Self, bytes: usize) {
        from.check(bytes);
        self.check(bytes);
        if bytes > 0 {
            self.gpu.copy(from.address, self.address, bytes);
        }
    }

    /// Sets the first `bytes` bytes to zero.
    ///
    /// # Panics
    /// If the memory is shorter.
    pub fn clear(&mut self, bytes: usize) {
        self.check(bytes);
        if bytes > 0 {
            self.gpu.clear(self.address, bytes);
        }
    }

    fn check(&self, bytes: usize) {
        assert!(bytes <= self.bytes, "{bytes} bytes of {}", self.bytes);
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
