//! Launches of `kernel.cu`.

use super::{AdamW, Rule, SquaredNorm};
use crate::launch::{THREADS, args, elements};
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, DType};

pub static KERNELS: Module = Module::new("adamw", concat!(include_str!("step.cuh"), include_str!("kernel.cu")));

/// Numbers of a block of the norm.
const PER_BLOCK: usize = 8192;

/// Numbers of f32 scratch memory of the norm.
pub fn partials(n: usize) -> usize {
    n.div_ceil(PER_BLOCK)
}

/// Weights, gradients and moments are f32 on a device.
fn learned(buffer: &Buffer) -> DType {
    assert_eq!(buffer.dtype(), DType::F32, "a device learns in f32");
    DType::F32
}

/// `partial` is scratch memory for [`partials`] numbers.
pub fn squared_norm(gpu: &dyn Gpu, op: &SquaredNorm, grad: &Buffer, norms: &Buffer, partial: Pointer) {
    let (n, blocks, dtype) = (grad.len(), partials(grad.len()), learned(grad));
    let norm = norms.pointer().offset(op.index);
    gpu.launch(&KERNELS.kernel("sum_squares", dtype), Grid::new(blocks, THREADS), args![grad, partial, n, PER_BLOCK]);
    gpu.launch(&KERNELS.kernel("sum_partials", dtype), Grid::new(1, 1024), args![partial, blocks, norm]);
}

pub fn adamw(gpu: &dyn Gpu, op: &AdamW, [grad, norms, schedule]: [&Buffer; 3], [w, m, v]: [&Buffer; 3]) {
    let n = grad.len();
    let Rule { beta1, beta2, eps, weight_decay } = op.rule;
    let constants = [beta1, beta2, eps, weight_decay, op.clip].map(Arg::F64);
    let args = [args![grad, norms, norms.len(), schedule], &constants[..], args![w, m, v, n]].concat();
    gpu.launch(&KERNELS.kernel("update", learned(grad)), elements(n, DType::F32), &args);
}
