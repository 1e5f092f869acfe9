//! Shared code for launching CUDA kernels.

use engine::cuda::{Arg, Factor, Gpu, Grid, Module, Pointer, Product};
use engine::{Buffer, DType};

/// The usual number of threads in a block.
pub const THREADS: u32 = 256;

/// Its warps.
pub const WARPS: usize = THREADS as usize / 32;

/// Numbers that a block sums.
pub const PER_BLOCK: usize = 8192;

/// One thread per sixteen bytes of `n` elements: the grid of `for_my_elements` in `common.cuh`.
pub fn elements(n: usize, dtype: DType) -> Grid {
    Grid::covering(n.div_ceil(16 / dtype.size()), THREADS)
}

/// Launches a kernel over the elements of `tensor`.
pub fn over(gpu: &dyn Gpu, tensor: &Buffer, module: &'static Module, entry: &'static str, args: &[Arg]) {
    let dtype = tensor.dtype();
    gpu.launch(&module.kernel(entry, dtype), elements(tensor.len(), dtype), args);
}

/// out [rows, cols] = a [rows, inner] · b [inner, cols], plus c if there is one.
pub fn product(gpu: &dyn Gpu, sizes: [usize; 3], [a, b]: [Factor; 2], c: Option<Pointer>, out: Pointer) {
    let [rows, cols, inner] = sizes;
    gpu.product(&Product { count: 1, shared: [false; 2], rows, cols, inner, a, b, c, out });
}

/// The arguments of a kernel: buffers and pointers become addresses, sizes become `int`.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$(engine::cuda::Arg::from($arg)),*][..] };
}

pub(crate) use args;
