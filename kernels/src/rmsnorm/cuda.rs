//! Launches of `kernel.cu`.

use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("rmsnorm", include_str!("kernel.cu"));

/// Threads of a block: eight warps, a row each.
const THREADS: u32 = 256;
const WARPS: usize = THREADS as usize / 32;

/// Rows of a block of the backward pass: enough that the gain's partial sums weigh little.
pub const ROWS: usize = 64;

/// Most bytes of shared memory that every GPU gives a block without being asked.
const SHARED: usize = 48 << 10;

pub fn forward(gpu: &dyn Gpu, eps: f64, x: &Buffer, gain: &Buffer, y: &mut Buffer, rstd: &mut Buffer) {
    let (rows, d) = (x.shape().rows(), gain.len());
    gpu.launch(
        &KERNELS.kernel("forward", x.dtype()),
        Grid::new(rows.div_ceil(WARPS), THREADS),
        &[x.into(), gain.into(), y.into(), rstd.into(), Arg::F32(eps as f32), Arg::int(rows), Arg::int(d)],
    );
}

/// What the backward pass reads; `gain` may be empty when `d_x` is not wanted.
pub struct Known<'a> {
    pub x: &'a Buffer,
    pub gain: &'a Buffer,
    pub rstd: &'a Buffer,
    pub d_y: &'a Buffer,
}

/// Numbers of f32 scratch memory.
pub fn partials(rows: usize, d: usize, want_gain: Want) -> usize {
    if want_gain.is_wanted() { rows.div_ceil(ROWS) * d } else { 0 }
}

/// `d_x` and `d_gain` as wanted; `partial` is scratch memory for [`partials`] numbers, none if the gain is not wanted.
pub fn backward(
    gpu: &dyn Gpu,
    known: &Known,
    wants: [Want; 2],
    d_x: &mut Buffer,
    d_gain: &mut Buffer,
    partial: Option<Pointer>,
) {
    let (rows, d) = (known.d_y.shape().rows(), known.d_y.shape().last());
    let dtype = known.d_y.dtype();
    // A warp's share of the gain's gradient is a row in shared memory: wide rows have room for fewer warps.
    let warps = if partial.is_some() { (SHARED / (4 * d)).clamp(1, WARPS) } else { WARPS };
    let blocks = rows.div_ceil(ROWS);
    let shared = if partial.is_some() { 4 * d * warps } else { 0 };
    gpu.launch(
        &KERNELS.kernel("backward", dtype),
        Grid::new(blocks, 32 * warps as u32).shared(shared),
        &[
            known.x.into(),
            known.gain.into(),
            known.rstd.into(),
            known.d_y.into(),
            wants[0].into(),
            d_x.into(),
            partial.map_or(Arg::Pointer(0), Arg::from),
            Arg::int(rows),
            Arg::int(d),
            Arg::int(ROWS),
        ],
    );
    if let Some(partial) = partial {
        gpu.launch(
            &KERNELS.kernel("sum_partials", dtype),
            Grid::new(d.div_ceil(32), 1024),
            &[partial.into(), Arg::int(blocks), wants[1].into(), d_gain.into(), Arg::int(d)],
        );
    }
}
