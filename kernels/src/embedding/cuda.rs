//! Launches of `kernel.cu`.

use crate::launch::{args, over};
use engine::cuda::{Gpu, Grid, Module, Pointer};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("embedding", include_str!("kernel.cu"));

/// Ids of a range, whose tokens are listed together.
const RANGE: usize = 256;

/// Warps that share the places of one id.
const WARPS: usize = 4;

pub fn forward(gpu: &dyn Gpu, table: &Buffer, tokens: &Buffer, h: &Buffer) {
    over(gpu, h, &KERNELS, "gather", args![table, tokens, h, h.len(), h.shape().last(), table.shape().rows()]);
}

/// Numbers of i32 scratch memory.
pub fn scratch(tokens: usize, vocab: usize) -> usize {
    tokens + vocab.div_ceil(RANGE) + 1
}

/// `memory` is scratch memory for [`scratch`] numbers.
pub fn vjp(gpu: &dyn Gpu, want: Want, tokens: &Buffer, d_h: &Buffer, d_table: &Buffer, memory: Pointer) {
    let (n, vocab, d, dtype) = (tokens.len(), d_table.shape().rows(), d_h.shape().last(), d_h.dtype());
    let (places, starts) = (memory, memory.offset(n));
    gpu.launch(
        &KERNELS.kernel("list_places", dtype),
        Grid::new(vocab.div_ceil(RANGE), 1024),
        args![tokens, n, RANGE, places, starts],
    );
    let wide = 16 / dtype.size();
    let pack = if d.is_multiple_of(wide) { wide } else { 1 };
    gpu.launch(
        &KERNELS.kernel("scatter", dtype),
        Grid::with_blocks([vocab, d.div_ceil(32 * pack), 1], 32 * WARPS as u32).shared(4 * WARPS * pack * 32),
        args![tokens, places, starts, RANGE, d_h, want, d_table, d],
    );
}
