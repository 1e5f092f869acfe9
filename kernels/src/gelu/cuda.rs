//! Launches of `kernel.cu`.

use crate::launch;
use engine::cuda::{Arg, Gpu, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("gelu", include_str!("kernel.cu"));

pub fn forward(gpu: &dyn Gpu, u: &Buffer, y: &mut Buffer) {
    let (n, dtype) = (y.len(), y.dtype());
    gpu.launch(&KERNELS.kernel("forward", dtype), launch::elements(n, dtype), &[u.into(), y.into(), Arg::int(n)]);
}

pub fn vjp(gpu: &dyn Gpu, want: Want, u: &Buffer, d_y: &Buffer, d_u: &mut Buffer) {
    let (n, dtype) = (d_y.len(), d_y.dtype());
    let args = [u.into(), d_y.into(), want.into(), d_u.into(), Arg::int(n)];
    gpu.launch(&KERNELS.kernel("backward", dtype), launch::elements(n, dtype), &args);
}
