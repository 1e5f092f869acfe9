//! Launches of `kernel.cu`.

use crate::launch;
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("embedding", include_str!("kernel.cu"));

/// Ids of a range, whose tokens are listed together.
const RANGE: usize = 256;

/// Warps that share the places of one id.
const WARPS: usize = 4;

pub fn forward(gpu: &dyn Gpu, table: &Buffer, tokens: &Buffer, h: &mut Buffer) {
    let (n, dtype) = (h.len(), h.dtype());
    let sizes = [n, h.shape().last(), table.shape().rows()].map(Arg::int);
    let args = [&[table.into(), tokens.into(), h.into()][..], &sizes].concat();
    gpu.launch(&KERNELS.kernel("gather", dtype), launch::elements(n, dtype), &args);
}

/// Numbers of i32 scratch memory.
pub fn scratch(tokens: usize, vocab: usize) -> usize {
    tokens + vocab.div_ceil(RANGE) + 1
}

/// `memory` is scratch memory for [`scratch`] numbers.
pub fn vjp(gpu: &dyn Gpu, want: Want, tokens: &Buffer, d_h: &Buffer, d_table: &mut Buffer, memory: Pointer) {
    let (n, vocab, d, dtype) = (tokens.len(), d_table.shape().rows(), d_h.shape().last(), d_h.dtype());
    let (places, starts) = (memory, memory.offset(n));
    gpu.launch(
        &KERNELS.kernel("list_places", dtype),
        Grid::new(vocab.div_ceil(RANGE), 1024),
        &[tokens.into(), Arg::int(n), Arg::int(RANGE), places.into(), starts.into()],
    );
    let wide = 16 / dtype.size();
    let pack = if d.is_multiple_of(wide) { wide } else { 1 };
    gpu.launch(
        &KERNELS.kernel("scatter", dtype),
        Grid::with_blocks([vocab, d.div_ceil(32 * pack), 1], 32 * WARPS as u32).shared(4 * WARPS * pack * 32),
        &[
            tokens.into(),
            places.into(),
            starts.into(),
            Arg::int(RANGE),
            d_h.into(),
            want.into(),
            d_table.into(),
            Arg::int(d),
        ],
    );
}
