//! Launches of `kernel.cu`.

use crate::launch::args;
use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("layernorm", include_str!("kernel.cu"));

/// Threads of a block where each of eight warps has a row.
const THREADS: u32 = 256;
const WARPS: usize = THREADS as usize / 32;

pub fn forward(gpu: &dyn Gpu, eps: f64, [x, gain, bias]: [&Buffer; 3], [y, mean, rstd]: [&Buffer; 3]) {
    let (rows, d) = (x.shape().rows(), gain.len());
    let args = args![x, gain, bias, y, mean, rstd, Arg::F32(eps as f32), rows, d];
    gpu.launch(&KERNELS.kernel("forward", x.dtype()), Grid::new(rows.div_ceil(WARPS), THREADS), args);
}

pub fn vjp_x(gpu: &dyn Gpu, [x, mean, rstd, d_y]: [&Buffer; 4], gain: &Buffer, want: Want, d_x: &Buffer) {
    let (rows, d) = (d_y.shape().rows(), gain.len());
    let args = args![x, mean, rstd, d_y, gain, want, d_x, rows, d];
    gpu.launch(&KERNELS.kernel("backward", d_y.dtype()), Grid::new(rows.div_ceil(WARPS), THREADS), args);
}

/// The gradients of gain and bias. For the bias alone, `x`, `mean` and `rstd` may be empty.
pub fn vjp_learned(
    gpu: &dyn Gpu,
    [x, mean, rstd, d_y]: [&Buffer; 4],
    wants: [Want; 2],
    [d_gain, d_bias]: [&Buffer; 2],
) {
    let (rows, d) = (d_y.shape().rows(), d_y.shape().last());
    let args = args![x, mean, rstd, d_y, wants[0], d_gain, wants[1], d_bias, rows, d];
    gpu.launch(&KERNELS.kernel("backward_learned", d_y.dtype()), Grid::new(d.div_ceil(32), 1024), args);
}
