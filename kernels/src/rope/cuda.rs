//! Launches of `kernel.cu`.

use super::cpu::{Layout, Turn};
use crate::launch::{self, THREADS};
use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("rope", include_str!("kernel.cu"));

pub fn table(gpu: &dyn Gpu, theta: f64, positions: &Buffer, table: &mut Buffer) {
    let (n, head_dim) = (positions.len(), table.shape().last());
    gpu.launch(
        &KERNELS.kernel("table", table.dtype()),
        Grid::covering(n * head_dim / 2, THREADS),
        &[positions.into(), Arg::F64(theta), table.into(), Arg::int(n), Arg::int(head_dim)],
    );
}

pub fn rope(gpu: &dyn Gpu, layout: Layout, turn: Turn, want: Want, x: &Buffer, table: &Buffer, y: &mut Buffer) {
    let Layout { head_dim, width, rotated } = layout;
    let (n, tokens) = (x.len(), table.shape().rows());
    let sign = match turn {
        Turn::Forth => 1.0,
        Turn::Back => -1.0,
    };
    let sizes = [n, tokens, head_dim, width, rotated].map(Arg::int);
    let args = [&[x.into(), table.into(), Arg::F32(sign), want.into(), y.into()][..], &sizes].concat();
    gpu.launch(&KERNELS.kernel("rotate", x.dtype()), launch::elements(n, x.dtype()), &args);
}
