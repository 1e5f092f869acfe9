//! Launches of `kernel.cu`.

use crate::launch::{args, over};
use engine::cuda::{Gpu, Grid, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("bias", include_str!("kernel.cu"));

pub fn forward(gpu: &dyn Gpu, x: &Buffer, b: &Buffer, y: &Buffer) {
    over(gpu, y, &KERNELS, "forward", args![x, b, y, y.len(), b.len()]);
}

pub fn vjp_b(gpu: &dyn Gpu, want: Want, d_y: &Buffer, d_b: &Buffer) {
    let width = d_b.len();
    let args = args![d_y, want, d_b, d_y.len() / width, width];
    gpu.launch(&KERNELS.kernel("backward", d_y.dtype()), Grid::new(width.div_ceil(32), 1024), args);
}
