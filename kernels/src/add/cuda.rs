//! Launches of `kernel.cu`.

use crate::launch::{args, over};
use engine::cuda::{Gpu, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("add", include_str!("kernel.cu"));

pub fn forward(gpu: &dyn Gpu, a: &Buffer, b: &Buffer, y: &Buffer) {
    over(gpu, y, &KERNELS, "add", args![a, b, y, y.len()]);
}

/// Copies or adds a gradient unchanged.
pub fn pass_on(gpu: &dyn Gpu, want: Want, d_out: &Buffer, d_in: &mut Buffer) {
    match want {
        Want::Skip => {}
        Want::Write => d_in.copy_from(d_out),
        Want::Add => forward(gpu, d_in, d_out, d_in),
    }
}
