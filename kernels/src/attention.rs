//! What the launches of attention kernels share; sizes as in `attention.cuh`.

use engine::DType;

/// Widths of a head that kernels are compiled for; others are rounded up.
pub static SIZES: [usize; 4] = [16, 32, 64, WIDEST_HEAD];

/// The widest head that attention on a GPU is compiled for.
pub const WIDEST_HEAD: usize = 128;

/// Threads of a block.
pub const THREADS: u32 = 128;

/// Tiles of one width and type.
#[derive(Clone, Copy)]
pub struct Tiles {
    pub size: usize,
    pub dtype: DType,
}

impl Tiles {
    /// For heads of this width.
    ///
    /// # Panics
    /// If it is beyond the widest.
    pub fn new(head_dim: usize, dtype: DType) -> Self {
        let size = SIZES.iter().copied().find(|&size| head_dim <= size);
        let size =
            size.unwrap_or_else(|| panic!("heads of {head_dim} are wider than the {WIDEST_HEAD} of a GPU's kernels"));
        Self { size, dtype }
    }

    /// Rows of a block: as many as its four warps' registers hold.
    pub fn block(self) -> usize {
        if self.dtype == DType::Bf16 && self.size <= 64 { 128 } else { 64 }
    }

    /// Bytes of `rows` rows in shared memory.
    pub fn bytes(self, rows: usize) -> usize {
        rows * (self.size * self.dtype.size() + 16)
    }
}

/// What scores are multiplied with.
pub fn scale(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
}
