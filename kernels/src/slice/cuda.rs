//! Launches of `kernel.cu`.

use super::cpu::Part;
use crate::launch;
use engine::cuda::{Arg, Gpu, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("slice", include_str!("kernel.cu"));

pub fn forward(gpu: &dyn Gpu, part: Part, x: &Buffer, y: &mut Buffer) {
    let n = y.len();
    run(gpu, "slice", part, x, y, n);
}

pub fn vjp(gpu: &dyn Gpu, part: Part, want: Want, d_y: &Buffer, d_x: &mut Buffer) {
    let (inside, all) = (d_y.len(), d_x.len());
    match want {
        Want::Skip => {}
        Want::Write => run(gpu, "put", part, d_y, d_x, all),
        Want::Add => run(gpu, "add", part, d_y, d_x, inside),
    }
}

fn run(gpu: &dyn Gpu, entry: &'static str, part: Part, from: &Buffer, to: &mut Buffer, n: usize) {
    let (d, dtype) = (from.shape().last(), from.dtype());
    let sizes = [n, d, part.sample, part.start, part.len].map(Arg::int);
    let args = [&[from.into(), to.into()][..], &sizes].concat();
    gpu.launch(&KERNELS.kernel(entry, dtype), launch::elements(n, dtype), &args);
}
