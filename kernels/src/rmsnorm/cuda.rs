//! Launches of `kernel.cu`.

use crate::launch::args;
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("rmsnorm", include_str!("kernel.cu"));

/// Threads of a block: eight warps, a row each.
const THREADS: u32 = 256;
const WARPS: usize = THREADS as usize / 32;

/// Rows of a block of the backward pass: enough that the gain's partial sums cost little.
pub const ROWS: usize = 64;

/// Bytes of shared memory that a block has on every GPU.
const SHARED: usize = 48 << 10;

pub fn forward(gpu: &dyn Gpu, eps: f64, [x, gain]: [&Buffer; 2], [y, rstd]: [&Buffer; 2]) {
    let (rows, d) = (x.shape().rows(), gain.len());
    let args = args![x, gain, y, rstd, Arg::F32(eps as f32), rows, d];
    gpu.launch(&KERNELS.kernel("forward", x.dtype()), Grid::new(rows.div_ceil(WARPS), THREADS), args);
}

/// Numbers of f32 scratch memory.
pub fn partials(rows: usize, d: usize, want_gain: Want) -> usize {
    if want_gain.is_wanted() { rows.div_ceil(ROWS) * d } else { 0 }
}

/// The wanted gradients. `gain` may be empty if `d_x` is not wanted; `partial` is there if `d_gain` is.
pub fn backward(
    gpu: &dyn Gpu,
    [x, gain, rstd, d_y]: [&Buffer; 4],
    wants: [Want; 2],
    [d_x, d_gain]: [&Buffer; 2],
    partial: Option<Pointer>,
) {
    let (rows, d, dtype) = (d_y.shape().rows(), d_y.shape().last(), d_y.dtype());
    // A warp's share of the gain's gradient is a row in shared memory: wide rows have room for fewer warps.
    let warps = if partial.is_some() { (SHARED / (4 * d)).clamp(1, WARPS) } else { WARPS };
    let blocks = rows.div_ceil(ROWS);
    let shared = if partial.is_some() { 4 * d * warps } else { 0 };
    let sums = partial.map_or(Arg::Pointer(0), Arg::from);
    gpu.launch(
        &KERNELS.kernel("backward", dtype),
        Grid::new(blocks, 32 * warps as u32).shared(shared),
        args![x, gain, rstd, d_y, wants[0], d_x, sums, rows, d, ROWS],
    );
    if partial.is_some() {
        let grid = Grid::new(d.div_ceil(32), 1024);
        gpu.launch(&KERNELS.kernel("sum_partials", dtype), grid, args![sums, blocks, wants[1], d_gain, d]);
    }
}
