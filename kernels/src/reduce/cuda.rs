//! Launches of `kernel.cu`.

use super::cpu::View;
use crate::launch::{PER_BLOCK, THREADS, WARPS, args, over};
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, Context, DType, Want};

pub static KERNELS: Module = Module::new("reduce", include_str!("kernel.cu"));

/// Rows of `inner` numbers of a piece: few enough that a large matrix keeps all of a GPU busy.
const ROWS: usize = 128;

/// Numbers of a row that a warp reduces alone.
const SHORT: usize = 1024;

/// Length of a piece of the axis.
fn piece(View { n, inner, .. }: View) -> usize {
    n.min(if inner == 1 { PER_BLOCK } else { ROWS })
}

/// Results of pieces, as floats and, for a maximum, as many places; none if there is one piece.
pub(super) fn scratch(view: View) -> usize {
    2 * partials(view)
}

fn partials(view: View) -> usize {
    match view.n.div_ceil(piece(view)) {
        1 => 0,
        pieces => view.outer * pieces * view.inner,
    }
}

/// The grid that reduces pieces of `per_piece` places of numbers of `size` bytes, and the warps that share a row.
fn grid(View { outer, n, inner }: View, per_piece: usize, size: usize) -> (Grid, usize) {
    let results = outer * n.div_ceil(per_piece);
    if inner > 1 {
        let wide = if inner.is_multiple_of(16 / size) { 16 / size } else { 1 };
        return (Grid::new(results * inner.div_ceil(32 * wide), THREADS), WARPS);
    }
    match per_piece <= SHORT {
        true => (Grid::new(results.div_ceil(WARPS), THREADS), 1),
        false => (Grid::new(results, THREADS), WARPS),
    }
}

/// `outs` is the result, and the index of a maximum.
pub(super) fn forward(cx: &Context, gpu: &dyn Gpu, view: View, scale: f64, x: &Buffer, outs: &[Buffer]) {
    let View { outer, n, inner } = view;
    let (piece, partials, dtype) = (piece(view), partials(view), x.dtype());
    let (y, index) = (&outs[0], outs.get(1));
    let null = Pointer { address: 0, dtype: DType::I32 };
    let at = index.map_or(null, Pointer::from);
    let scale = Arg::F32(scale as f32);
    let largest = usize::from(index.is_some());
    let (first, team) = grid(view, piece, dtype.size());
    if partials == 0 {
        let args = [args![x, largest], &[scale], args![y, at, outer, n, inner, team]].concat();
        return gpu.launch(&KERNELS.kernel("whole", dtype), first, &args);
    }
    let values = cx.scratch_at(DType::F32, 2 * partials);
    let places = if index.is_some() { values.offset(partials).cast(DType::I32) } else { null };
    let args = args![x, largest, values, places, outer, n, inner, piece, team];
    gpu.launch(&KERNELS.kernel("pieces", dtype), first, args);
    let again = View { n: n.div_ceil(piece), ..view };
    let (second, team) = grid(again, again.n, DType::F32.size());
    let args = [args![values, places, largest], &[scale], args![y, at, outer, again.n, inner, team]].concat();
    gpu.launch(&KERNELS.kernel("combine", dtype), second, &args);
}

pub(super) fn spread(gpu: &dyn Gpu, view: View, scale: f64, want: Want, d_y: &Buffer, d_x: &Buffer) {
    let args = [args![d_y], &[Arg::F32(scale as f32)], args![want, d_x, d_x.len(), view.n, view.inner]].concat();
    over(gpu, d_x, &KERNELS, "spread", &args);
}

pub(super) fn place(gpu: &dyn Gpu, view: View, want: Want, index: &Buffer, d_y: &Buffer, d_x: &Buffer) {
    let View { n, inner, .. } = view;
    if want == Want::Write {
        return over(gpu, d_x, &KERNELS, "place", args![d_y, index, d_x, d_x.len(), n, inner]);
    }
    let grid = Grid::covering(d_y.len(), THREADS);
    gpu.launch(&KERNELS.kernel("add_at", d_x.dtype()), grid, args![d_y, index, d_x, d_y.len(), n, inner]);
}
