//! Launches of `kernel.cu`, and gradients that are handed on.

use crate::launch;
use engine::cuda::{Arg, Gpu, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("add", include_str!("kernel.cu"));

pub fn forward(gpu: &dyn Gpu, a: &Buffer, b: &Buffer, y: &mut Buffer) {
    add(gpu, a.into(), b.into(), y);
}

/// Hands a gradient on unchanged; for `Add` this room's kernels must be loaded.
pub fn pass_on(gpu: &dyn Gpu, want: Want, d_out: &Buffer, d_in: &mut Buffer) {
    match want {
        Want::Skip => {}
        Want::Write => d_in.copy_from(d_out),
        Want::Add => add(gpu, Arg::from(&*d_in), d_out.into(), d_in),
    }
}

fn add(gpu: &dyn Gpu, a: Arg, b: Arg, y: &mut Buffer) {
    let (n, dtype) = (y.len(), y.dtype());
    gpu.launch(&KERNELS.kernel("add", dtype), launch::elements(n, dtype), &[a, b, y.into(), Arg::int(n)]);
}
