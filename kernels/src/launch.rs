//! What the launches of elementwise kernels share.

use engine::DType;
use engine::cuda::Grid;

/// Threads of a block where nothing speaks for another number.
pub const THREADS: u32 = 256;

/// A thread for every sixteen bytes of `n` elements: the grid of `for_my_elements` in `common.cuh`.
pub fn elements(n: usize, dtype: DType) -> Grid {
    Grid::covering(n.div_ceil(16 / dtype.size()), THREADS)
}
