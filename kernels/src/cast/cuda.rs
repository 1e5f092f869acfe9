//! Launches of `kernel.cu`.

use crate::launch::{THREADS, args};
use engine::cuda::{Gpu, Grid, Module, Pointer};
use engine::{DType, Want};

pub static KERNELS: Module = Module::new("cast", include_str!("kernel.cu"));

/// Elements of a thread.
const PACK: usize = 8;

pub fn convert(gpu: &dyn Gpu, from: Pointer, want: Want, to: Pointer, n: usize) {
    let entry = match to.dtype {
        DType::F32 => "to_f32",
        DType::Bf16 => "to_bf16",
        other => panic!("a device does not hold {other}"),
    };
    let grid = Grid::covering(n.div_ceil(PACK), THREADS);
    gpu.launch(&KERNELS.kernel(entry, from.dtype), grid, args![from, want, to, n]);
}
