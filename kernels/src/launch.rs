//! What launches of CUDA kernels share.

use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, DType};

/// The usual number of threads in a block.
pub const THREADS: u32 = 256;

/// A thread for every sixteen bytes of `n` elements: the grid of `for_my_elements` in `common.cuh`.
pub fn elements(n: usize, dtype: DType) -> Grid {
    Grid::covering(n.div_ceil(16 / dtype.size()), THREADS)
}

/// Launches a kernel over the elements of `tensor`.
pub fn over(gpu: &dyn Gpu, tensor: &Buffer, module: &'static Module, entry: &'static str, args: &[Arg]) {
    let dtype = tensor.dtype();
    gpu.launch(&module.kernel(entry, dtype), elements(tensor.len(), dtype), args);
}

/// The arguments of a kernel: buffers and pointers become addresses, sizes become `int`.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$(engine::cuda::Arg::from($arg)),*][..] };
}

pub(crate) use args;
