//! C = A·B and C += A·B on the CPU, for matrices of any size and orientation.
//!
//! **The bits.** Every element of C is one chain of fused multiply-adds over k = 0, 1, 2, …, begun at zero or at C:
//! `c = a[i,k]·b[k,j] + c`. Nothing else enters it: not the instruction set, the number of threads, the tile, the other
//! rows and columns, nor whether B was packed beforehand. k is cut into blocks for the caches only; between two of them
//! the chain rests in C, where it loses nothing.
//!
//! **The loops** (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 2008; Van Zee and van
//! de Geijn, "BLIS", TOMS 2015), from the outside: tiles of C, one per thread at a time · blocks of k · panels of A, packed
//! one at a time and small enough for L1 · panels of B, which the first panel of A finds unpacked and leaves packed for all
//! others to read from L2 · the micro-kernel. A tile is as tall as can be, so that B is packed seldom. Threads share
//! nothing but the sources, so that there is nothing to wait for.

use super::microkernel::{Block, Geometry, Start, product};
use super::pack::{PANEL, panel};
use super::tiles::{Tile, for_each_tile};
use engine::parallel;
use engine::simd::{self, Isa, Kernel, LANES, Real};

/// A block of k: in f32, a panel of A is 28 KiB on AVX-512 and 12 KiB on AVX2 and NEON, a block of B 1 MiB. Deeper means fewer
/// passes over C.
const DEPTH: usize = 512;
/// Most rows and columns of C in a tile, and fewest that are worth packing for.
const TILE: [usize; 2] = [2016, 512];
const SMALL_TILE: [usize; 2] = [42, 128];
/// With fewer rows than this in C, reading contiguous rows of B in place is cheaper than packing them.
const IN_PLACE_ROWS: usize = 28;

/// A matrix to read: element (i, j) is `data[i·row_stride + j·col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T: Copy> Mat<'a, T> {
    /// Contiguous rows, [rows, cols].
    ///
    /// # Panics
    /// If `data` is shorter.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::with_strides(data, rows, cols, cols, 1)
    }

    /// Any strides.
    ///
    /// # Panics
    /// If the last element lies outside `data`.
    pub fn with_strides(data: &'a [T], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        let end = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + (cols - 1) * col_stride + 1 };
        assert!(end <= data.len(), "a [{rows}, {cols}] matrix ends at {end}, its data at {}", data.len());
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// The transpose, in place.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub(super) fn col_stride(&self) -> usize {
        self.col_stride
    }

    pub(super) fn data(&self) -> &'a [T] {
        self.data
    }

    #[inline(always)]
    pub(super) fn at(&self, i: usize, j: usize) -> T {
        self.data[i * self.row_stride + j * self.col_stride]
    }

    /// Whether every row is contiguous and at least a panel away from the next.
    fn has_long_rows(&self) -> bool {
        self.col_stride == 1 && self.row_stride >= PANEL
    }

    /// Prefetches the share of the work from `done` to `done + step` of `all`.
    #[inline(always)]
    fn prefetch_part(&self, done: usize, step: usize, all: usize) {
        let lines = if self.col_stride == 1 { *self } else { self.transposed() };
        if lines.col_stride == 1 && lines.cols > 0 {
            for i in done * lines.rows / all..lines.rows.min((done + step) * lines.rows / all) {
                simd::prefetch(&lines.data[i * lines.row_stride..][..lines.cols]);
            }
        }
    }

    /// `rows` × `cols` from (i, j).
    #[inline(always)]
    fn part(self, i: usize, j: usize, rows: usize, cols: usize) -> Self {
        let start = i * self.row_stride + j * self.col_stride;
        Self::with_strides(self.data.get(start..).unwrap_or_default(), rows, cols, self.row_stride, self.col_stride)
    }
}

/// A matrix to write: contiguous rows, `row_stride` apart.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a, T> MatMut<'a, T> {
    /// Contiguous rows without gaps, [rows, cols].
    ///
    /// # Panics
    /// If `data` is shorter.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        Self::with_stride(data, rows, cols, cols)
    }

    /// Rows `row_stride` ≥ `cols` apart; what lies between is left alone.
    ///
    /// # Panics
    /// If rows overlap or the last one ends outside `data`.
    pub fn with_stride(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(cols <= row_stride, "rows of {cols} columns overlap when {row_stride} apart");
        let end = if rows == 0 { 0 } else { (rows - 1) * row_stride + cols };
        assert!(end <= data.len(), "a [{rows}, {cols}] matrix ends at {end}, its data at {}", data.len());
        Self { data, rows, cols, row_stride }
    }
}

/// What becomes of the old contents of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulate {
    /// C = A·B; C is not read.
    Write,
    /// C += A·B.
    Add,
}

/// C [m, n] = A [m, k] · B [k, n], or added to C. Allocates nothing but the thread's scratch memory, once.
///
/// # Panics
/// If the sizes do not agree.
pub fn gemm<T: Real>(c: MatMut<'_, T>, a: Mat<'_, T>, b: Mat<'_, T>, accumulate: Accumulate) {
    assert_eq!([c.rows, a.cols, c.cols], [a.rows, b.rows, b.cols], "sizes of C[m, n] = A[m, k]·B[k, n]");
    run(c, a, Factor::Plain(b), accumulate);
}

/// Elements of a packed B [k, n].
pub const fn packed_len(k: usize, n: usize) -> usize {
    n.div_ceil(PANEL) * PANEL * k
}

/// Packs B [k, n] for [`gemm_packed`]: in panels of 32 columns, filled up with zeros, the rows of each panel one after the
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

/// [`gemm`] with a B [a.cols, c.cols] that [`pack_b`] packed before; the same bits.
///
/// # Panics
/// If the sizes do not agree.
pub fn gemm_packed<T: Real>(c: MatMut<'_, T>, a: Mat<'_, T>, packed: &[T], accumulate: Accumulate) {
    assert_eq!(c.rows, a.rows, "rows of C[m, n] = A[m, k]·B[k, n]");
    assert_eq!(packed.len(), packed_len(a.cols, c.cols), "length of a packed [{}, {}] matrix", a.cols, c.cols);
    run(c, a, Factor::Packed(packed), accumulate);
}

/// B, as it is or packed.
#[derive(Clone, Copy)]
enum Factor<'a, T> {
    Plain(Mat<'a, T>),
    Packed(&'a [T]),
}

fn run<T: Real>(c: MatMut<'_, T>, a: Mat<'_, T>, b: Factor<'_, T>, accumulate: Accumulate) {
    if a.cols == 0 && accumulate == Accumulate::Write {
        (0..c.rows).for_each(|i| c.data[i * c.row_stride..][..c.cols].fill(T::ZERO));
    }
    if a.cols == 0 {
        return;
    }
    let size = tile_size(c.rows, c.cols);
    for_each_tile(c.data, [c.rows, c.cols], c.row_stride, size, |c| {
        // A panel of A, at most sixteen rows high, and a block of B.
        let a_len = LANES * DEPTH + LANES;
        let b_len = c.cols.len().next_multiple_of(PANEL) * DEPTH;
        parallel::scratch(a_len + b_len, |scratch| {
            let (a_packed, b_packed) = scratch.split_at_mut(a_len);
            simd::dispatch(TileProduct { c, a, b, a_packed, b_packed, accumulate });
        });
    });
}

/// Tiles as large as the caches allow; with several threads cut smaller until each has two, less what rounding to panels
/// takes. Two threads get one each, which packs less: a training step takes 2 % less time than with two each.
fn tile_size(rows: usize, cols: usize) -> [usize; 2] {
    let most = match rayon::current_num_threads() {
        n @ 1..=2 => n,
        n => 2 * n,
    };
    let even = |length: usize, parts: usize, unit: usize| length.div_ceil(parts).next_multiple_of(unit);
    let (mut down, mut across) = (rows.div_ceil(TILE[0]).max(1), cols.div_ceil(TILE[1]).max(1));
    loop {
        let size = [even(rows, down, SMALL_TILE[0] / 3).max(1), even(cols, across, PANEL).max(1)];
        if down * across >= most || (size[0] <= SMALL_TILE[0] && size[1] <= SMALL_TILE[1]) {
            return size;
        }
        if size[0] > SMALL_TILE[0] && (size[0] * 2 > size[1] || size[1] <= SMALL_TILE[1]) {
            down *= 2;
        } else {
            across *= 2;
        }
    }
}

/// One tile of C, and memory for packing.
struct TileProduct<'a, T> {
    c: Tile<'a, T>,
    a: Mat<'a, T>,
    b: Factor<'a, T>,
    a_packed: &'a mut [T],
    b_packed: &'a mut [T],
    accumulate: Accumulate,
}

impl<T: Real> Kernel for TileProduct<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self) {
        // Of a transposed A, a panel takes a cache line from every k: often a power of two apart, few of which L1 can hold.
        let most = if self.a.row_stride == 1 { DEPTH / 2 } else { DEPTH };
        for first in (0..self.a.cols).step_by(most) {
            self.block::<I>(first, most.min(self.a.cols - first));
        }
    }
}

impl<'a, T: Real> TileProduct<'a, T> {
    /// The part of the product with k = first .. first + depth.
    #[inline(always)]
    fn block<I: Isa>(&mut self, first: usize, depth: usize) {
        let (rows, cols) = (self.c.rows.len(), self.c.cols.len());
        let (most, groups) = (Geometry::rows::<I, T>(), Geometry::groups::<I, T>());
        let start = if first == 0 && self.accumulate == Accumulate::Write { Start::Zero } else { Start::C };
        for i in (0..rows).step_by(most) {
            let part = self.a.part(self.c.rows.start + i, first, most.min(rows - i), depth);
            let height = Geometry::height::<I, T>(part.rows);
            panel::<I, T>(part, height, self.a_packed);
            let a = &self.a_packed[..height * depth];
            let below = rows.min(i + most);
            let next_a = self.a.part(self.c.rows.start + below, first, most.min(rows - below), depth);
            for j in (0..cols).step_by(PANEL) {
                // What comes next is on its way while this is computed.
                next_a.prefetch_part(j, PANEL, cols);
                let width = PANEL.min(cols - j);
                let source = self.panel_of_b(first, self.c.cols.start + j, depth, width);
                let b = if matches!(self.b, Factor::Packed(_))
                    || width == PANEL && rows < IN_PLACE_ROWS && source.has_long_rows()
                {
                    source
                } else {
                    let packed = &mut self.b_packed[j * depth..][..PANEL * depth];
                    if i == 0 {
                        panel::<I, T>(source.transposed(), PANEL, packed);
                    }
                    Mat::new(packed, depth, PANEL)
                };
                for g in (0..width).step_by(groups * LANES) {
                    let block = Block { row: i, col: j + g, rows: part.rows, cols: (groups * LANES).min(width - g) };
                    let next = block.col + block.cols;
                    for row in i..i + part.rows {
                        simd::prefetch(self.c.row(row, next, (groups * LANES).min(cols - next)));
                    }
                    product::<I, T>(height, a, b, g, &mut self.c, block, start);
                }
            }
        }
    }

    /// Rows first .. first + depth of the panel of B that begins at column `col`, packed or not.
    #[inline(always)]
    fn panel_of_b(&self, first: usize, col: usize, depth: usize, width: usize) -> Mat<'a, T> {
        match self.b {
            Factor::Plain(b) => b.part(first, col, depth, width),
            // Tiles are aligned to panels, which lie one after the other.
            Factor::Packed(all) if width > 0 => Mat::new(&all[col * self.a.cols + first * PANEL..], depth, PANEL),
            Factor::Packed(_) => Mat::new(&[], depth, 0),
        }
    }
}

#[cfg(test)]
#[path = "gemm_tests.rs"]
mod tests;
