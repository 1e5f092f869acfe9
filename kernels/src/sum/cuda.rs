//! Launches of `kernel.cu`.

use crate::launch::{self, THREADS};
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("sum", include_str!("kernel.cu"));

/// Numbers of a block: every thread has a few packs of them.
const PER_BLOCK: usize = 8192;

/// Numbers of f32 scratch memory.
pub fn partials(n: usize) -> usize {
    n.div_ceil(PER_BLOCK)
}

/// `partial` is scratch memory for [`partials`] numbers.
pub fn forward(gpu: &dyn Gpu, x: &Buffer, y: &mut Buffer, partial: Pointer) {
    let (n, blocks) = (x.len(), partials(x.len()));
    gpu.launch(
        &KERNELS.kernel("sum_blocks", x.dtype()),
        Grid::new(blocks, THREADS),
        &[x.into(), partial.into(), Arg::int(n), Arg::int(PER_BLOCK)],
    );
    gpu.launch(
        &KERNELS.kernel("sum_partials", x.dtype()),
        Grid::new(1, 1024),
        &[partial.into(), Arg::int(blocks), y.into()],
    );
}

pub fn vjp(gpu: &dyn Gpu, d_y: &Buffer, want: Want, d_x: &mut Buffer) {
    let (n, dtype) = (d_x.len(), d_x.dtype());
    let args = [d_y.into(), want.into(), d_x.into(), Arg::int(n)];
    gpu.launch(&KERNELS.kernel("spread", dtype), launch::elements(n, dtype), &args);
}
