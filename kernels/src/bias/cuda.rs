//! Launches of `kernel.cu`.

use crate::launch;
use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("bias", include_str!("kernel.cu"));

pub fn forward(gpu: &dyn Gpu, x: &Buffer, b: &Buffer, y: &mut Buffer) {
    let (n, dtype) = (y.len(), y.dtype());
    let args = [x.into(), b.into(), y.into(), Arg::int(n), Arg::int(b.len())];
    gpu.launch(&KERNELS.kernel("forward", dtype), launch::elements(n, dtype), &args);
}

pub fn vjp_b(gpu: &dyn Gpu, want: Want, d_y: &Buffer, d_b: &mut Buffer) {
    let (width, dtype) = (d_b.len(), d_y.dtype());
    let args = [d_y.into(), want.into(), d_b.into(), Arg::int(d_y.len() / width), Arg::int(width)];
    gpu.launch(&KERNELS.kernel("backward", dtype), Grid::new(width.div_ceil(32), 1024), &args);
}
