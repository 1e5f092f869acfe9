//! Launches of `kernel.cu`.

use super::cpu::Layout;
use crate::launch::{THREADS, args, over};
use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("rope", include_str!("kernel.cu"));

pub fn table(gpu: &dyn Gpu, theta: f64, positions: &Buffer, table: &Buffer) {
    let (n, head_dim) = (positions.len(), table.shape().last());
    let grid = Grid::covering(n * head_dim / 2, THREADS);
    gpu.launch(&KERNELS.kernel("table", table.dtype()), grid, args![positions, Arg::F64(theta), table, n, head_dim]);
}

pub fn rope(gpu: &dyn Gpu, layout: Layout, sign: f32, want: Want, x: &Buffer, table: &Buffer, y: &Buffer) {
    let Layout { head_dim, width, rotated } = layout;
    let tokens = table.shape().rows();
    let args = args![x, table, Arg::F32(sign), want, y, x.len(), tokens, head_dim, width, rotated];
    over(gpu, x, &KERNELS, "rotate", args);
}
