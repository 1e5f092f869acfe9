//! Launches of `kernel.cu`.

use crate::launch::{args, over};
use engine::cuda::{Gpu, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("swiglu", include_str!("kernel.cu"));

pub fn forward(gpu: &dyn Gpu, u: &Buffer, y: &Buffer) {
    over(gpu, y, &KERNELS, "forward", args![u, y, y.len(), y.shape().last()]);
}

pub fn vjp(gpu: &dyn Gpu, want: Want, u: &Buffer, d_y: &Buffer, d_u: &Buffer) {
    over(gpu, d_y, &KERNELS, "backward", args![u, d_y, want, d_u, d_y.len(), d_y.shape().last()]);
}
