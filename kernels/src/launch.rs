//! What the launches of elementwise kernels share.

use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, DType};

/// Threads of a block where nothing speaks for another number.
pub const THREADS: u32 = 256;

/// A thread for every sixteen bytes of `n` elements: the grid of `for_my_elements` in `common.cuh`.
pub fn elements(n: usize, dtype: DType) -> Grid {
    Grid::covering(n.div_ceil(16 / dtype.size()), THREADS)
}

/// Launches a kernel that goes over the elements of `tensor` by `for_my_elements`.
pub fn over(gpu: &dyn Gpu, tensor: &Buffer, module: &'static Module, entry: &'static str, args: &[Arg]) {
    let dtype = tensor.dtype();
    gpu.launch(&module.kernel(entry, dtype), elements(tensor.len(), dtype), args);
}

/// The arguments of a kernel, each converted: buffers and pointers to addresses, sizes to `int`.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$(engine::cuda::Arg::from($arg)),*][..] };
}

pub(crate) use args;
