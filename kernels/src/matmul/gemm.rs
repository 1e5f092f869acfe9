//! C = A·B and C += A·B on the CPU, for matrices of any size and orientation.
//!
//! **The bits.** Every element of C is one chain of fused multiply-adds over k = 0, 1, 2, …, begun at zero, at C or
//! at another matrix: `c = a[i,k]·b[k,j] + c`. Nothing else affects it: not the instruction set, the number of threads, the tile, the
//! other rows and columns, nor whether B was packed beforehand. k is cut into blocks only for the caches; between two
//! blocks the partial sum is stored in C without loss.
//!
//! **The loops** (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 2008; Van Zee and
//! van de Geijn, "BLIS", TOMS 2015), from the outside: tiles of C, one per thread at a time · blocks of k · blocks of
//! A, each packed in panels · panels of B, packed while the first block of A uses them and then reused · panels of A ·
//! the micro-kernel. `geometry::blocking` decides what stays in L1 and what comes from L2. Tiles are tall, so that B
//! is packed rarely. Threads share only A and B, and never wait for each other.

use super::geometry::{self, Blocking, MOST_A, MOST_DEPTH, PANEL};
use super::mat::{Mat, MatMut, Start};
use super::microkernel::{Block, Columns, product};
use super::pack::{panel, panels};
use super::tiles::{Tile, for_each_tile, tile_size};
use engine::simd::{self, Isa, Kernel, LANES, Real};
use engine::{Want, parallel};
use std::ops::Range;

/// With fewer rows than this in a tile, and columns a multiple of sixteen, reading contiguous rows of B in place is cheaper
/// than packing them.
const IN_PLACE_ROWS: usize = 28;

/// B [k, n], unpacked or packed by [`pack_b`]; the bits are the same.
#[derive(Clone, Copy)]
pub enum Factor<'a, T> {
    /// Unpacked.
    Plain(Mat<'a, T>),
    /// Packed in panels.
    Packed(&'a [T]),
}

impl<'a, T> From<Mat<'a, T>> for Factor<'a, T> {
    fn from(b: Mat<'a, T>) -> Self {
        Self::Plain(b)
    }
}

/// C [m, n] = A [m, k] · B [k, n], or C += A·B to [`Want::Add`]. Allocates only scratch memory, once per thread.
///
/// # Panics
/// If the sizes do not agree, or nothing is wanted.
pub fn gemm<'a, T: Real>(c: MatMut<'_, T>, a: Mat<'_, T>, b: impl Into<Factor<'a, T>>, want: Want) {
    assert!(want != Want::Skip, "the product must be wanted");
    if a.cols == 0 && want == Want::Write {
        (0..c.rows).for_each(|i| c.data[i * c.row_stride..][..c.cols].fill(T::ZERO));
    }
    multiply(c, a, b.into(), Start { want, onto: None });
}

/// C [m, n] = R [m, n] + A [m, k] · B [k, n], with the bits of C = R and then C += A·B. R has contiguous rows.
///
/// # Panics
/// As [`gemm`].
pub fn gemm_onto<'a, T: Real>(c: MatMut<'_, T>, r: Mat<'_, T>, a: Mat<'_, T>, b: impl Into<Factor<'a, T>>) {
    assert!([r.rows, r.cols, r.col_stride] == [c.rows, c.cols, 1], "sizes of C[m, n] = R[m, n] + A·B");
    if a.cols == 0 {
        (0..c.rows).for_each(|i| c.data[i * c.row_stride..][..c.cols].copy_from_slice(r.row(i, 0..r.cols)));
    }
    multiply(c, a, b.into(), Start { want: Want::Add, onto: Some(r) });
}

fn multiply<T: Real>(c: MatMut<'_, T>, a: Mat<'_, T>, b: Factor<'_, T>, start: Start<'_, T>) {
    let same = match b {
        Factor::Plain(b) => [a.cols, c.cols] == [b.rows, b.cols],
        Factor::Packed(b) => b.len() == packed_len(a.cols, c.cols),
    };
    assert!(c.rows == a.rows && same, "sizes of C[m, n] = A[m, k]·B[k, n]");
    if a.cols == 0 {
        return;
    }
    let blocking = geometry::in_use::<T>();
    let size = tile_size(blocking, c.rows, c.cols, a.cols);
    for_each_tile(c.data, [c.rows, c.cols], c.row_stride, size, |c| {
        let b_len = match b {
            Factor::Plain(_) => c.cols.len().next_multiple_of(PANEL) * MOST_DEPTH.min(a.cols.next_multiple_of(4)),
            Factor::Packed(_) => 0,
        };
        parallel::scratch(MOST_A + LANES + b_len, |scratch| {
            let (a_packed, b_packed) = scratch.split_at_mut(MOST_A + LANES);
            simd::dispatch(TileProduct { c, a, b, a_packed, b_packed, start });
        });
    });
}

/// Elements of a packed B [k, n].
pub const fn packed_len(k: usize, n: usize) -> usize {
    n.div_ceil(PANEL) * PANEL * k
}

/// Packs B [k, n] for [`gemm`]: in panels of 16 columns, filled up with zeros, the rows of each panel one after the
/// other. The layout is the same for every instruction set.
///
/// # Panics
/// If `out` does not have [`packed_len`] elements.
pub fn pack_b<T: Real>(b: Mat<'_, T>, out: &mut [T]) {
    assert_eq!(out.len(), packed_len(b.rows, b.cols), "length of a packed [{}, {}] matrix", b.rows, b.cols);
    if b.rows == 0 {
        return;
    }
    parallel::chunks(out, PANEL * b.rows, |i, out| {
        let first = i * PANEL;
        let columns = b.part(0, first, b.rows, PANEL.min(b.cols - first)).transposed();
        simd::dispatch(PackPanel(columns, out));
    });
}

/// One panel of B, given as its transpose.
struct PackPanel<'a, T>(Mat<'a, T>, &'a mut [T]);

impl<T: Real> Kernel for PackPanel<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        panel::<I, T>(self.0, PANEL, self.1);
    }
}

/// One tile of C, and memory for packing.
struct TileProduct<'a, T> {
    c: Tile<'a, T>,
    a: Mat<'a, T>,
    b: Factor<'a, T>,
    a_packed: &'a mut [T],
    b_packed: &'a mut [T],
    start: Start<'a, T>,
}

impl<T: Real> Kernel for TileProduct<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { mut c, a, b, a_packed, b_packed, start } = self;
        let rows_of_b = matches!(b, Factor::Plain(b) if b.col_stride == 1);
        let in_place = rows_of_b && c.rows.len() < IN_PLACE_ROWS && c.cols.len().is_multiple_of(LANES);
        let mut b = Right { factor: b, k: a.cols, cols: c.cols.clone(), packed: b_packed, in_place };
        let blocking = geometry::blocking::<I, T>();
        let most = if a.row_stride == 1 { blocking.depth_across } else { blocking.depth };
        // Blocks of k have equal lengths, rounded up to multiples of four, because the micro-kernel takes four at a
        // time.
        let depth = a.cols.div_ceil(a.cols.div_ceil(most)).next_multiple_of(4);
        for first in (0..a.cols).step_by(depth) {
            let start = if first == 0 { start } else { Start::C };
            let a = a.part(c.rows.start, first, c.rows.len(), depth.min(a.cols - first));
            block::<I, T>(&mut c, a, a_packed, &mut b, first, start);
        }
    }
}

/// The part of the product in `c` for the k of `a`, from `first` on.
#[inline(always)]
fn block<I: Isa, T: Real>(
    c: &mut Tile<'_, T>,
    a: Mat<'_, T>,
    a_packed: &mut [T],
    b: &mut Right<'_, T>,
    first: usize,
    start: Start<'_, T>,
) {
    let (rows, cols, depth) = (c.rows.len(), c.cols.len(), a.cols);
    let Blocking { panel: most, rows: together, .. } = geometry::blocking::<I, T>();
    let across = geometry::groups::<I, T>() * LANES;
    for i in (0..rows).step_by(together) {
        let below = rows.min(i + together);
        panels::<I, T>(a.part(i, 0, below - i, depth), a_packed);
        let next_a = a.part(below, 0, together.min(rows - below), depth);
        for j in (0..cols).step_by(across) {
            // Fetches the next block while this one is computed.
            next_a.prefetch_part(j, across, cols);
            let width = across.min(cols - j);
            if i == 0 {
                b.pack::<I>(first, j, depth, width);
            }
            let columns = b.columns(first, j, depth);
            for row in (i..below).step_by(most) {
                let block = Block { row, col: j, rows: most.min(below - row), cols: width };
                prefetch_next(c, block, i..below);
                let height = geometry::height::<I, T>(block.rows);
                product::<I, T>(height, &a_packed[(row - i) * depth..][..height * depth], columns, c, block, start);
            }
        }
    }
}

/// Prefetches the part of C after `block`: the rows below it or, from the first of `rows`, the next columns.
#[inline(always)]
fn prefetch_next<T: Real>(c: &mut Tile<'_, T>, block: Block, rows: Range<usize>) {
    let (row, col) = match block.row + block.rows {
        row if row < rows.end => (row, block.col),
        _ => (rows.start, block.col + block.cols),
    };
    let cols = block.cols.min(c.cols.len() - col);
    for row in row..rows.end.min(row + block.rows) {
        simd::prefetch(c.row(row, col, cols));
    }
}

/// The columns `cols` of B [k, n] that a tile needs, with memory for packing a block. Contiguous rows may be read `in_place`.
struct Right<'a, T> {
    factor: Factor<'a, T>,
    k: usize,
    cols: Range<usize>,
    packed: &'a mut [T],
    in_place: bool,
}

impl<T: Real> Right<'_, T> {
    /// Packs `width` columns from column `j` of the tile, rows first .. first + depth, where [`Self::columns`] needs it.
    #[inline(always)]
    fn pack<I: Isa>(&mut self, first: usize, j: usize, depth: usize, width: usize) {
        let Factor::Plain(b) = self.factor else { return };
        if self.in_place {
            return;
        }
        for j in (j..j + width).step_by(PANEL) {
            let columns = b.part(first, self.cols.start + j, depth, PANEL.min(self.cols.len() - j));
            panel::<I, T>(columns.transposed(), PANEL, &mut self.packed[j * depth..][..PANEL * depth]);
        }
    }

    /// The columns from column `j` of the tile, rows first .. first + depth.
    #[inline(always)]
    fn columns(&self, first: usize, j: usize, depth: usize) -> Columns<'_, T> {
        let col = self.cols.start + j;
        let (data, stride, group) = match self.factor {
            // Tiles are aligned to panels, which lie one after the other.
            Factor::Packed(all) => (&all[col * self.k + first * PANEL..], PANEL, PANEL * self.k),
            Factor::Plain(b) if self.in_place => (&b.data[first * b.row_stride + col..], b.row_stride, LANES),
            Factor::Plain(_) => (&self.packed[j * depth..], PANEL, PANEL * depth),
        };
        Columns { data, stride, group }
    }
}

#[cfg(test)]
mod tests;
