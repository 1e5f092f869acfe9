//! Launches of `kernel.cu`.

use super::cpu::Shape;
use crate::attention::{self, BLOCK, THREADS, Tiles};
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, DType, Want};

pub static KERNELS: Module =
    Module::new("window_attention", concat!(include_str!("../attention.cuh"), include_str!("kernel.cu")))
        .with_sizes(&attention::SIZES);

/// Columns of a tile of the backward pass.
const BACKWARD: usize = 32;

/// Columns of a tile of the forward pass.
fn forward_columns(dtype: DType) -> usize {
    if dtype == DType::Bf16 { 64 } else { 32 }
}

fn launch(gpu: &dyn Gpu, shape: Shape, like: &Buffer, entry: &'static str, shared: usize, args: &[Arg]) {
    let Shape { tokens, heads, head_dim, window } = shape;
    let (samples, dtype) = (like.shape().dims()[0], like.dtype());
    let sizes = [tokens, heads, head_dim, window].map(Arg::int);
    gpu.launch(
        &KERNELS.kernel(entry, dtype).size(Tiles::new(head_dim, dtype).size),
        Grid::with_blocks([tokens.div_ceil(BLOCK), heads, samples], THREADS).shared(shared),
        &[args, &sizes, &[Arg::F32(attention::scale(head_dim))]].concat(),
    );
}

pub fn forward(gpu: &dyn Gpu, shape: Shape, qkv: &Buffer, y: &mut Buffer, lse: &mut Buffer) {
    let shared = Tiles::new(shape.head_dim, qkv.dtype()).bytes(BLOCK + 4 * forward_columns(qkv.dtype()));
    launch(gpu, shape, qkv, "forward", shared, &[qkv.into(), y.into(), lse.into()]);
}

/// What the backward pass reads.
pub struct Known<'a> {
    pub qkv: &'a Buffer,
    pub y: &'a Buffer,
    pub lse: &'a Buffer,
    pub d_y: &'a Buffer,
}

/// `delta` is f32 scratch memory for as many numbers as `lse` has.
pub fn backward(gpu: &dyn Gpu, shape: Shape, known: &Known, want: Want, d_qkv: &mut Buffer, delta: Pointer) {
    let [qkv, y, lse, d_y] = [known.qkv, known.y, known.lse, known.d_y].map(Arg::from);
    let shared = Tiles::new(shape.head_dim, known.qkv.dtype()).bytes(2 * BLOCK + 4 * BACKWARD);
    let queries = [qkv, y, lse, d_y, want.into(), Arg::from(&*d_qkv), delta.into()];
    launch(gpu, shape, known.qkv, "backward_queries", shared, &queries);
    let keys = [qkv, lse, delta.into(), d_y, want.into(), d_qkv.into()];
    let statistics = 2 * BACKWARD * DType::F32.size();
    launch(gpu, shape, known.qkv, "backward_keys", shared + statistics, &keys);
}
