//! Launches of `kernel.cu`, and the products between them.

use super::{Blocks, COEFFICIENTS, MOMENTUM, Muon, STEPS};
use crate::launch::{PER_BLOCK, THREADS, args, product};
use engine::cuda::Factor::{Plain, Transposed};
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, DType};

pub static KERNELS: Module = Module::new("muon", concat!(include_str!("../adamw/step.cuh"), include_str!("kernel.cu")));

/// Numbers of f32 scratch memory for a step.
pub(super) fn scratch_len(Blocks { count, rows, cols }: Blocks) -> usize {
    let (size, n) = (rows * cols, rows.min(cols));
    2 * count * size + 2 * n * n + count * size.div_ceil(PER_BLOCK)
}

/// `scratch` is memory for [`scratch_len`] numbers.
pub(super) fn step(gpu: &dyn Gpu, op: &Muon, ins: &[&Buffer], [w, m]: [&Buffer; 2], scratch: Pointer) {
    let (&[grad, norms, schedule], blocks) = (ins, op.blocks(w.spec())) else { unreachable!("three inputs") };
    assert_eq!(w.dtype(), DType::F32, "training on a device is in f32");
    let Blocks { count, rows, cols } = blocks;
    let (size, n) = (rows * cols, rows.min(cols));
    let mut at = 0;
    let [x, y, a, p, partial] = [count * size, count * size, n * n, n * n, 0].map(|len| {
        at += len;
        scratch.offset(at - len)
    });
    let kernel = |entry| KERNELS.kernel(entry, DType::F32);
    let pieces = Grid::with_blocks([size.div_ceil(PER_BLOCK), count, 1], THREADS);
    let factors = [Arg::F64(op.clip), Arg::F64(MOMENTUM)];
    let args = [args![grad, norms, norms.len()], &factors, args![m, x, partial, size, PER_BLOCK]].concat();
    gpu.launch(&kernel("momentum"), pieces, &args);
    gpu.launch(&kernel("normalise"), pieces, args![x, partial, size, PER_BLOCK]);
    let coefficients = COEFFICIENTS.map(Arg::F64);
    for block in 0..count {
        let mut both = [x, y].map(|x| x.offset(block * size));
        for _ in 0..STEPS {
            let [x, y] = both;
            let square = if rows <= cols { [Plain(x), Transposed(x)] } else { [Transposed(x), Plain(x)] };
            product(gpu, [n, n, rows.max(cols)], square, None, a);
            product(gpu, [n, n, n], [Plain(a), Plain(a)], None, p);
            let args = [args![a, p, n], &coefficients].concat();
            gpu.launch(&kernel("polynomial"), Grid::covering(n * n, THREADS), &args);
            let next = if rows <= cols { [Plain(p), Plain(x)] } else { [Plain(x), Plain(p)] };
            product(gpu, [rows, cols, n], next, None, y);
            both.swap(0, 1);
        }
    }
    // The result of an odd number of steps.
    const { assert!(STEPS % 2 == 1) };
    let factors = [Arg::F64(op.weight_decay), Arg::F64(blocks.scale())];
    let args = [args![y, norms, norms.len(), schedule], &factors, args![w, w.len()]].concat();
    gpu.launch(&kernel("descend"), Grid::covering(w.len(), THREADS), &args);
}
