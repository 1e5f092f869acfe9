//! Launches of `kernel.cu`.

use super::cpu::Shape;
use crate::attention::{self, BLOCK, ROWS, THREADS, Tiles};
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, DType, Want};

pub static KERNELS: Module =
    Module::new("cross_attention", concat!(include_str!("../attention.cuh"), include_str!("kernel.cu")))
        .with_sizes(&attention::SIZES);

/// Latents and tokens of a tile.
const LATENTS: usize = 16;
const TOKENS: usize = 64;

/// `blocks` for each head of each sample, with `shared` bytes of shared memory.
struct Blocks {
    blocks: usize,
    shared: usize,
}

fn launch(gpu: &dyn Gpu, shape: Shape, q: &Buffer, entry: &'static str, blocks: Blocks, args: &[Arg]) {
    let Shape { tokens, heads, head_dim, latents } = shape;
    let (samples, dtype) = (q.shape().dims()[0], q.dtype());
    let sizes = [tokens, latents, heads, head_dim].map(Arg::int);
    gpu.launch(
        &KERNELS.kernel(entry, dtype).size(Tiles::new(head_dim, dtype).size),
        Grid::with_blocks([blocks.blocks, heads, samples], THREADS).shared(blocks.shared),
        &[args, &sizes, &[Arg::F32(attention::scale(head_dim))]].concat(),
    );
}

pub fn forward(gpu: &dyn Gpu, shape: Shape, q: &Buffer, kv: &Buffer, y: &mut Buffer) {
    let shared = Tiles::new(shape.head_dim, q.dtype()).bytes(BLOCK + 4 * LATENTS);
    let blocks = Blocks { blocks: shape.tokens.div_ceil(BLOCK), shared };
    launch(gpu, shape, q, "forward", blocks, &[q.into(), kv.into(), y.into()]);
}

/// What the backward pass reads.
pub struct Known<'a> {
    pub q: &'a Buffer,
    pub kv: &'a Buffer,
    pub d_y: &'a Buffer,
}

/// Numbers of f32 scratch memory: two for each token and head.
pub fn scratch(shape: Shape, samples: usize) -> usize {
    2 * samples * shape.tokens * shape.heads
}

/// `memory` is scratch memory for [`scratch`] numbers.
pub fn backward(
    gpu: &dyn Gpu,
    shape: Shape,
    known: &Known,
    wants: [Want; 2],
    d_q: &mut Buffer,
    d_kv: &mut Buffer,
    memory: Pointer,
) {
    let [q, kv, d_y] = [known.q, known.kv, known.d_y].map(Arg::from);
    let (lse, delta) = (memory, memory.offset(scratch(shape, known.q.shape().dims()[0]) / 2));
    let tiles = Tiles::new(shape.head_dim, known.q.dtype());
    let blocks = Blocks { blocks: shape.tokens.div_ceil(BLOCK), shared: tiles.bytes(2 * BLOCK + 4 * LATENTS) };
    let args = [q, kv, d_y, wants[0].into(), d_q.into(), lse.into(), delta.into()];
    launch(gpu, shape, known.q, "backward_queries", blocks, &args);
    if wants[1].is_wanted() {
        let shared = tiles.bytes(2 * ROWS + 4 * TOKENS) + 2 * TOKENS * DType::F32.size();
        let blocks = Blocks { blocks: shape.latents.div_ceil(ROWS), shared };
        let args = [q, kv, lse.into(), delta.into(), d_y, wants[1].into(), d_kv.into()];
        launch(gpu, shape, known.q, "backward_keys", blocks, &args);
    }
}
