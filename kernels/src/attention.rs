//! What attention kernels share; sizes as in `attention.cuh`.

use crate::{cross_attention, window_attention};
use engine::DType;
use engine::cuda::Gpu;

/// Head widths that kernels are compiled for; others are rounded up.
pub static SIZES: [usize; 4] = [16, 32, 64, 128];

/// The widest head whose tiles fit into a block's shared memory on this GPU: 128 on an A100 or H100, 64 in f32 with the 99 KiB
/// of an RTX 30 to 50.
pub fn widest_head(gpu: &dyn Gpu, dtype: DType) -> usize {
    let needed = |size| {
        let tiles = Tiles { size, dtype };
        window_attention::cuda::shared(tiles).max(cross_attention::cuda::shared(tiles))
    };
    SIZES.into_iter().take_while(|&size| needed(size) <= gpu.shared_bytes()).last().unwrap_or(0)
}

/// Threads of a block.
pub const THREADS: u32 = 128;

/// Tiles of one width and type.
#[derive(Clone, Copy)]
pub struct Tiles {
    pub size: usize,
    pub dtype: DType,
}

impl Tiles {
    /// For heads of this width, which must be at most the widest.
    pub fn new(head_dim: usize, dtype: DType) -> Self {
        let size = SIZES.iter().copied().find(|&size| head_dim <= size);
        let size = size.unwrap_or_else(|| panic!("heads of {head_dim} are wider than those of a GPU's kernels"));
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
pub fn scale(head_dim: usize) -> f64 {
    1.0 / (head_dim as f64).sqrt()
}
