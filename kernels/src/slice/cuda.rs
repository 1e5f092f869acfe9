//! Launches of `kernel.cu`.

use super::cpu::Part;
use crate::launch::{args, elements};
use engine::cuda::{Gpu, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("slice", include_str!("kernel.cu"));

pub fn forward(gpu: &dyn Gpu, part: Part, x: &Buffer, y: &Buffer) {
    run(gpu, "slice", part, x, y, y.len());
}

pub fn vjp(gpu: &dyn Gpu, part: Part, want: Want, d_y: &Buffer, d_x: &Buffer) {
    match want {
        Want::Skip => {}
        Want::Write => run(gpu, "put", part, d_y, d_x, d_x.len()),
        Want::Add => run(gpu, "add", part, d_y, d_x, d_y.len()),
    }
}

fn run(gpu: &dyn Gpu, entry: &'static str, part: Part, from: &Buffer, to: &Buffer, n: usize) {
    let args = args![from, to, n, from.shape().last(), part.sample, part.start, part.len];
    gpu.launch(&KERNELS.kernel(entry, from.dtype()), elements(n, from.dtype()), args);
}
