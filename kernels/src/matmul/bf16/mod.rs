//! C = A·B and C += A·B with both factors rounded to bf16, and sums in f32.
//!
//! **The bits.** k is cut into blocks of 32, the last filled up with zeros. For every element of C, a block adds one number
//! to C: the sum of two chains of fused multiply-adds from zero, over its even and its odd k in ascending order. Whatever is
//! rounded is rounded to nearest even. Subnormal numbers count as zeros of their sign: in the factors, in C, in every result.
//! `scalar` is this definition in plain Rust. AMX computes it in one instruction; AVX2 and AVX-512 compute it in f32, with
//! the processor's own flushing of subnormals ([`engine::simd::dispatch_flushing`]). As in [`gemm`](mod@super::gemm), nothing
//! else affects the bits, except that a NaN may have any payload.
//!
//! **The loops**, from the outside: tiles of C, one per thread at a time · blocks of B's columns that fit into L2 · strips of
//! 32 rows of A, packed when the first block of B needs them, unless [`pack_left`] did · strips of 32 columns of B · blocks of
//! k. B is packed beforehand, in a layout that is the same for every instruction set. A strip by a strip is one loop over 2×2 tiles (AMX),
//! which reads and writes C in place. The lanes, which expand B to f32, have the two middle loops the other way round.

mod lanes;
mod pack;
mod scalar;
#[cfg(test)]
mod tests;

use super::geometry::Blocking;
use super::mat::{Mat, MatMut, Start};
use super::tiles::{Tile, for_each_tile, tile_size};
use engine::simd::{self, Block, Level, SIDE};
use engine::{Element, Want, parallel};
use half::bf16;
pub(crate) use pack::Strip;
pub use pack::{pack, pack_left, packed_len};

/// A [m, k], unpacked or packed by [`pack_left`]; the bits are the same.
#[derive(Clone, Copy)]
pub enum Left<'a, T> {
    /// Contiguous along its rows or along its columns.
    Plain(Mat<'a, T>),
    /// By [`pack_left`].
    Packed {
        /// Rows m.
        rows: usize,
        /// Columns k.
        cols: usize,
        /// Strips of 32 rows.
        blocks: &'a [Block],
    },
}

impl<'a, T> From<Mat<'a, T>> for Left<'a, T> {
    fn from(a: Mat<'a, T>) -> Self {
        Self::Plain(a)
    }
}

impl<'a, T: Element> Left<'a, T> {
    fn sizes(self) -> [usize; 2] {
        match self {
            Self::Plain(a) => [a.rows, a.cols],
            Self::Packed { rows, cols, .. } => [rows, cols],
        }
    }

    fn singles(self) -> Left<'a, f32> {
        match self {
            Self::Plain(a) => Left::Plain(a.singles()),
            Self::Packed { rows, cols, blocks } => Left::Packed { rows, cols, blocks },
        }
    }
}

/// Tiles of C are as large as the number of threads allows: a tile of many columns packs A once.
const CUT: Blocking = Blocking { panel: SIDE, rows: SIDE, depth: SIDE, depth_across: SIDE, cols: usize::MAX / 2 };

/// C [m, n] = A [m, k] · B [k, n], or C += A·B to [`Want::Add`]; `b` was packed by [`pack`].
///
/// # Panics
/// If the sizes do not agree, T is not f32, A is contiguous neither along its rows nor along its columns, or nothing is
/// wanted.
pub fn product<'a, T: Element>(c: MatMut<'_, T>, a: impl Into<Left<'a, T>>, b: &[bf16], want: Want) {
    let (c, a) = (c.singles(), a.into().singles());
    assert!(want != Want::Skip, "the product must be wanted");
    if a.sizes()[1] == 0 && want == Want::Write {
        (0..c.rows).for_each(|i| c.data[i * c.row_stride..][..c.cols].fill(0.0));
    }
    multiply(c, a, b, Start { want, onto: None });
}

/// C [m, n] = R [m, n] + A [m, k] · B [k, n], with the bits of C = R and then C += A·B. R has contiguous rows.
///
/// # Panics
/// As [`product`].
pub fn product_onto(c: MatMut<'_, f32>, r: Mat<'_, f32>, a: Mat<'_, f32>, b: &[bf16]) {
    assert!([r.rows, r.cols, r.col_stride] == [c.rows, c.cols, 1], "sizes of C[m, n] = R[m, n] + A·B");
    if a.cols == 0 {
        (0..c.rows).for_each(|i| c.data[i * c.row_stride..][..c.cols].copy_from_slice(r.row(i, 0..r.cols)));
    }
    multiply(c, a.into(), b, Start { want: Want::Add, onto: Some(r) });
}

/// Multiplies blocks on this thread, for an op that packs them itself.
pub(crate) struct Multiplier {
    #[cfg(target_arch = "x86_64")]
    amx: Option<simd::Amx>,
}

impl Multiplier {
    /// For the instruction set in use.
    pub fn begin() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            amx: (simd::level() == Level::Amx).then(simd::Amx::begin),
        }
    }

    /// `c` = the sum over the blocks of a·b, or `c` += it to [`Want::Add`].
    pub fn multiply(&self, a: &[Block], b: &[Block], how: Want, c: &mut [[f32; SIDE]; SIDE]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(amx) = &self.amx {
            return amx.multiply(a, b, how, c);
        }
        if how != Want::Add {
            *c = [[0.0; SIDE]; SIDE];
        }
        match simd::level() {
            Level::Avx2 | Level::Avx512 => lanes::add(a, b, c),
            _ => scalar::add(a, b, c),
        }
    }
}

fn multiply(c: MatMut<'_, f32>, a: Left<'_, f32>, b: &[bf16], start: Start<'_, f32>) {
    let [rows, k] = a.sizes();
    assert!(c.rows == rows && b.len() == packed_len(k, c.cols), "sizes of C[m, n] = A[m, k]·B[k, n]");
    if k == 0 {
        return;
    }
    let b = b.as_chunks().0;
    let size = tile_size(CUT, c.rows, c.cols, k);
    for_each_tile(c.data, [c.rows, c.cols], c.row_stride, size, |mut c| match simd::level() {
        #[cfg(target_arch = "x86_64")]
        Level::Amx => {
            let amx = simd::Amx::begin();
            tiles(&mut c, a, b, |c, place, a, b| match place {
                Place { row, col, rows: SIDE, cols: SIDE } => c.amx(&amx, [row, col], [a, b], start.want, start.onto),
                _ => in_copy(c, place, start, |sums| amx.multiply(a, b, Want::Add, sums)),
            });
        }
        Level::Avx2 | Level::Avx512 => lanes::tile(&mut c, a, b, start),
        _ => tiles(&mut c, a, b, |c, place, a, b| in_copy(c, place, start, |sums| scalar::add(a, b, sums))),
    });
}

/// At most 32 rows and columns of a tile of C, and where they begin.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
}

/// Calls `multiply` for every place in the tile, with the strips of A and B that it needs.
fn tiles(
    c: &mut Tile<'_, f32>,
    a: Left<'_, f32>,
    b: &[Block],
    multiply: impl Fn(&mut Tile<'_, f32>, Place, &[Block], &[Block]),
) {
    let (rows, cols, depth) = (c.rows.len(), c.cols.len(), a.sizes()[1].div_ceil(SIDE));
    let b = &b[c.cols.start / SIDE * depth..][..cols.div_ceil(SIDE) * depth];
    // A block of B takes at most 1 MiB, half of an L2 of 2 MiB.
    let most = at_once(cols, depth, 1 << 19);
    let strips = rows.div_ceil(SIDE);
    let room = if let Left::Plain(_) = a { strips * SIDE * SIDE * depth } else { 0 };
    parallel::scratch(room, |a_packed: &mut [bf16]| {
        let a_packed: &mut [Block] = a_packed.as_chunks_mut().0;
        for first in (0..cols).step_by(most) {
            let rest = &b[first / SIDE * depth..];
            let (block, next) = rest.split_at(rest.len().min(most / SIDE * depth));
            for at in 0..strips {
                let row = at * SIDE;
                let height = SIDE.min(rows - row);
                let strip = match a {
                    Left::Packed { blocks, .. } => &blocks[(c.rows.start / SIDE + at) * depth..][..depth],
                    Left::Plain(a) => {
                        let strip = &mut a_packed[at * depth..][..depth];
                        if first == 0 {
                            let x = a.part(c.rows.start + row, 0, height, a.cols);
                            Strip { x, left: true, out: strip }.pack();
                        }
                        &*strip
                    }
                };
                // Fetches a part of the next block of B.
                let part = |at: usize| at * next.len().min(block.len()) / strips;
                simd::prefetch(next[part(at)..part(at + 1)].as_flattened());
                for (col, b) in (first..cols).step_by(SIDE).zip(block.chunks_exact(depth)) {
                    let place = Place { row, col, rows: height, cols: SIDE.min(cols - col) };
                    prefetch_next(c, place);
                    multiply(c, place, strip, b);
                }
            }
        }
    });
}

/// Prefetches the columns of C after the place: waiting for them costs up to a third of the time.
#[inline(always)]
fn prefetch_next(c: &mut Tile<'_, f32>, place: Place) {
    let first = place.col + SIDE;
    let cols = SIDE.min(c.cols.len().saturating_sub(first));
    if cols > 0 {
        for row in place.row..place.row + place.rows {
            simd::prefetch(c.row(row, first, cols));
        }
    }
}

/// Rows of A or columns of B, a multiple of 32, at most `all`, that take at most `elements` in blocks.
fn at_once(all: usize, depth: usize, elements: usize) -> usize {
    (elements / (SIDE * SIDE * depth)).clamp(1, all.div_ceil(SIDE)) * SIDE
}

/// Computes a place of the tile in a copy of full size.
#[inline(always)]
fn in_copy(c: &mut Tile<'_, f32>, place: Place, start: Start<'_, f32>, add: impl FnOnce(&mut [[f32; SIDE]; SIDE])) {
    let Place { row, col, rows, cols } = place;
    let (top, left) = (c.rows.start + row, c.cols.start + col);
    let mut sums = [[0.0; SIDE]; SIDE];
    for (i, sums) in sums[..rows].iter_mut().enumerate() {
        match start {
            Start { want: Want::Add, onto: None } => sums[..cols].copy_from_slice(c.row(row + i, col, cols)),
            Start { want: Want::Add, onto: Some(r) } => sums[..cols].copy_from_slice(r.row(top + i, left..left + cols)),
            _ => {}
        }
    }
    add(&mut sums);
    for (i, sums) in sums[..rows].iter().enumerate() {
        c.row(row + i, col, cols).copy_from_slice(&sums[..cols]);
    }
}
