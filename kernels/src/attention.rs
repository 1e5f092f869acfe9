//! Shared code of the attention kernels; sizes as in `attention.cuh`.

use engine::DType;
use engine::simd::Real;

/// Head widths that kernels are compiled for; others are rounded up.
pub static SIZES: [usize; 4] = [16, 32, 64, 128];

/// Threads of a block.
pub const THREADS: u32 = 128;

/// The tiles of one head width and type.
#[derive(Clone, Copy)]
pub struct Tiles {
    pub size: usize,
    pub dtype: DType,
}

impl Tiles {
    /// For heads of this width, which must be at most the widest.
    pub fn new(head_dim: usize, dtype: DType) -> Self {
        let size = SIZES.iter().copied().find(|&size| head_dim <= size);
        let size = size.unwrap_or_else(|| panic!("heads of {head_dim} are wider than the GPU kernels support"));
        Self { size, dtype }
    }

    /// Whether a tile of many rows fits into registers and shared memory.
    pub fn are_small(self) -> bool {
        self.dtype == DType::Bf16 && self.size <= 64
    }

    /// Rows of a block: as many as its four warps' registers hold.
    pub fn block(self) -> usize {
        if self.are_small() { 128 } else { 64 }
    }

    /// Bytes of `rows` rows in shared memory.
    pub fn bytes(self, rows: usize) -> usize {
        rows * (self.size * self.dtype.size() + 16)
    }
}

/// The factor of attention scores, 1/√D.
pub fn scale<T: Real>(head_dim: usize) -> T {
    T::from_f64(1.0 / (head_dim as f64).sqrt())
}
