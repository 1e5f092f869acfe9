//! Launches of `kernel.cu`.

use super::cpu::Shape;
use crate::attention::{self, THREADS, Tiles};
use crate::launch::args;
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, DType, Want};

pub static KERNELS: Module =
    Module::new("self_attention", concat!(include_str!("../attention.cuh"), include_str!("kernel.cu")))
        .with_sizes(&attention::SIZES);

/// Columns of a tile.
fn columns(tiles: Tiles) -> usize {
    if tiles.are_small() { 64 } else { 32 }
}

/// Bytes of shared memory: `own` blocks of rows and a stream of tiles.
fn rows(tiles: Tiles, own: usize) -> usize {
    tiles.bytes(own * tiles.block() + 4 * columns(tiles))
}

/// Bytes of shared memory of the backward kernels, which need more than the forward kernel: two blocks of rows and the
/// stream, with two floats for each column of two tiles.
pub fn shared(tiles: Tiles) -> usize {
    rows(tiles, 2) + 4 * columns(tiles) * DType::F32.size()
}

/// `ins` are the op's inputs, with or without lengths.
fn launch(gpu: &dyn Gpu, shape: Shape, ins: &[&Buffer], entry: &'static str, shared: fn(Tiles) -> usize, args: &[Arg]) {
    let Shape { tokens, heads, head_dim, before, after } = shape;
    let (samples, dtype) = (ins[0].shape().dims()[0], ins[0].dtype());
    let tiles = Tiles::new(head_dim, dtype);
    let lengths = ins.get(1).map_or(Arg::Pointer(0), |&lengths| Arg::from(lengths));
    gpu.launch(
        &KERNELS.kernel(entry, dtype).size(tiles.size),
        Grid::with_blocks([tokens.div_ceil(tiles.block()), heads, samples], THREADS).shared(shared(tiles)),
        &[args, args![tokens, heads, head_dim, before, after, Arg::F32(attention::scale(head_dim)), lengths]].concat(),
    );
}

pub fn forward(gpu: &dyn Gpu, shape: Shape, ins: &[&Buffer], y: &Buffer, lse: &Buffer) {
    launch(gpu, shape, ins, "forward", |tiles| rows(tiles, 1), args![ins[0], y, lse]);
}

/// Numbers of f32 scratch memory: lse and delta of each token and head.
pub fn scratch(shape: Shape, samples: usize) -> usize {
    2 * samples * shape.tokens * shape.heads
}

/// `pairs` is scratch memory for [`scratch`] numbers.
pub fn backward(
    gpu: &dyn Gpu,
    shape: Shape,
    ins: &[&Buffer],
    known: [&Buffer; 4],
    want: Want,
    d_qkv: &Buffer,
    pairs: Pointer,
) {
    let [qkv, y, lse, d_y] = known;
    launch(gpu, shape, ins, "backward_queries", shared, args![qkv, y, lse, d_y, want, d_qkv, pairs]);
    launch(gpu, shape, ins, "backward_keys", shared, args![qkv, pairs, d_y, want, d_qkv]);
}
