//! Launches of `kernel.cu`.

use super::cpu::Shape;
use crate::attention::{self, THREADS, Tiles};
use crate::launch::args;
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, DType, Want};

pub static KERNELS: Module =
    Module::new("cross_attention", concat!(include_str!("../attention.cuh"), include_str!("kernel.cu")))
        .with_sizes(&attention::SIZES);

/// Latents and tokens of a tile, and tokens of a block of the backward pass.
const LATENTS: usize = 16;
const TOKENS: usize = 64;
const CHUNK: usize = 256;

/// Launches these blocks, with this many bytes of shared memory, for each head of each sample.
fn launch(gpu: &dyn Gpu, shape: Shape, q: &Buffer, entry: &'static str, [blocks, shared]: [usize; 2], args: &[Arg]) {
    let Shape { tokens, heads, head_dim, latents } = shape;
    let (samples, dtype) = (q.shape().dims()[0], q.dtype());
    gpu.launch(
        &KERNELS.kernel(entry, dtype).size(Tiles::new(head_dim, dtype).size),
        Grid::with_blocks([blocks, heads, samples], THREADS).shared(shared),
        &[args, args![tokens, latents, heads, head_dim, Arg::F32(attention::scale(head_dim))]].concat(),
    );
}

pub fn forward(gpu: &dyn Gpu, shape: Shape, q: &Buffer, kv: &Buffer, y: &Buffer) {
    let tiles = Tiles::new(shape.head_dim, q.dtype());
    let blocks = [shape.tokens.div_ceil(TOKENS), tiles.bytes(TOKENS + 4 * LATENTS)];
    launch(gpu, shape, q, "forward", blocks, args![q, kv, y]);
}

/// Bytes of shared memory of the backward pass, which needs more than the forward pass: latents, tokens and two floats
/// per token.
pub fn shared(tiles: Tiles) -> usize {
    tiles.bytes(2 * LATENTS + 4 * TOKENS) + 2 * TOKENS * DType::F32.size()
}

/// Numbers of f32 scratch memory if d_kv is wanted: one d_kv per chunk of tokens.
pub fn scratch(shape: Shape, samples: usize) -> usize {
    shape.tokens.div_ceil(CHUNK) * samples * shape.latents * 2 * shape.heads * shape.head_dim
}

/// `partials` is scratch memory for [`scratch`] numbers; empty if d_kv is not wanted.
pub fn backward(
    gpu: &dyn Gpu,
    shape: Shape,
    [q, kv, d_y]: [&Buffer; 3],
    wants: [Want; 2],
    [d_q, d_kv]: [&Buffer; 2],
    partials: Option<Pointer>,
) {
    let chunks = shape.tokens.div_ceil(CHUNK);
    let parts = if partials.is_some() { shape.latents.div_ceil(LATENTS) } else { 1 };
    let tiles = Tiles::new(shape.head_dim, q.dtype());
    let sums = partials.map_or(Arg::Pointer(0), Arg::from);
    launch(gpu, shape, q, "backward", [chunks * parts, shared(tiles)], args![q, kv, d_y, wants[0], d_q, parts, sums]);
    if partials.is_some() {
        let n = d_kv.len();
        let packs = n.div_ceil(16 / d_kv.dtype().size());
        let args = args![sums, chunks, wants[1], d_kv, n];
        gpu.launch(&KERNELS.kernel("sum_partials", tiles.dtype).size(tiles.size), Grid::covering(packs, 256), args);
    }
}
