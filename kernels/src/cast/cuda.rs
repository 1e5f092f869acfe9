//! Launches of `kernel.cu`.

use crate::launch::THREADS;
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{DType, Want};

pub static KERNELS: Module = Module::new("cast", include_str!("kernel.cu"));

/// Numbers of a thread.
const PACK: usize = 8;

pub fn convert(gpu: &dyn Gpu, from: Pointer, want: Want, to: Pointer, n: usize) {
    let entry = match to.dtype {
        DType::F32 => "to_f32",
        DType::Bf16 => "to_bf16",
        other => panic!("a device does not hold {other}"),
    };
    gpu.launch(
        &KERNELS.kernel(entry, from.dtype),
        Grid::covering(n.div_ceil(PACK), THREADS),
        &[from.into(), want.into(), to.into(), Arg::int(n)],
    );
}
