//! Launches of `kernel.cu`.

use crate::launch::{THREADS, args, over};
use engine::cuda::{Gpu, Grid, Module, Pointer};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("sum", include_str!("kernel.cu"));

/// Elements of a block.
const PER_BLOCK: usize = 8192;

/// Numbers of f32 scratch memory.
pub fn partials(n: usize) -> usize {
    n.div_ceil(PER_BLOCK)
}

/// `partial` is scratch memory for [`partials`] numbers.
pub fn forward(gpu: &dyn Gpu, x: &Buffer, y: &Buffer, partial: Pointer) {
    let (blocks, kernel) = (partials(x.len()), |entry| KERNELS.kernel(entry, x.dtype()));
    gpu.launch(&kernel("sum_blocks"), Grid::new(blocks, THREADS), args![x, partial, x.len(), PER_BLOCK]);
    gpu.launch(&kernel("sum_partials"), Grid::new(1, 1024), args![partial, blocks, y]);
}

pub fn vjp(gpu: &dyn Gpu, d_y: &Buffer, want: Want, d_x: &Buffer) {
    over(gpu, d_x, &KERNELS, "spread", args![d_y, want, d_x, d_x.len()]);
}
