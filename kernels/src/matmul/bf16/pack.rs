//! Rounds a factor to bf16 and stores it in the order in which the product reads it.
//!
//! A strip of 32 rows of A is a list of blocks of 32 k, each two tiles of sixteen rows: for every row, its 32 elements. A
//! strip of 32 columns of B also is a list of blocks of 32 k, each two tiles of sixteen columns: for each of the sixteen
//! pairs of k, the pair of every column. With a pair as one word, a tile of B is the transpose of a tile of A.

use super::super::mat::Mat;
use super::Left;
use engine::simd::{self, Block, Isa, Kernel, LANES, Lanes, SIDE, load_words, store_words};
use engine::{Element, parallel};
use half::bf16;

/// Elements of a packed B [k, n].
pub const fn packed_len(k: usize, n: usize) -> usize {
    n.div_ceil(SIDE) * k.div_ceil(SIDE) * SIDE * SIDE
}

/// Packs B [k, n] for [`product`](super::product): rounds to nearest even, makes subnormal numbers zero, keeps a NaN a NaN,
/// and fills up with zeros. The layout and the bits are the same for every instruction set.
///
/// # Panics
/// If `out` does not have [`packed_len`] elements, T is not f32, or B is contiguous neither along its rows nor along its
/// columns.
pub fn pack<T: Element>(b: Mat<'_, T>, out: &mut [bf16]) {
    let b = b.singles();
    assert_eq!(out.len(), packed_len(b.rows, b.cols), "length of a packed [{}, {}] matrix", b.rows, b.cols);
    if out.is_empty() {
        return;
    }
    parallel::chunks(out, packed_len(b.rows, SIDE), |i, out| {
        let x = b.part(0, i * SIDE, b.rows, SIDE.min(b.cols - i * SIDE)).transposed();
        Strip { x, left: false, out: out.as_chunks_mut().0 }.pack();
    });
}

/// Packs A [m, k] for [`product`](super::product), as [`pack`] does B, into as much of `out` as it takes.
///
/// # Panics
/// If `out` has fewer than [`packed_len`]`(k, m)` elements, T is not f32, or A is contiguous neither along its rows nor along
/// its columns.
pub fn pack_left<'a, T: Element>(a: Mat<'_, T>, out: &'a mut [bf16]) -> Left<'a, T> {
    let a = a.singles();
    let out = &mut out[..packed_len(a.cols, a.rows)];
    parallel::chunks(out, packed_len(a.cols, SIDE).max(1), |i, out| {
        let x = a.part(i * SIDE, 0, SIDE.min(a.rows - i * SIDE), a.cols);
        Strip { x, left: true, out: out.as_chunks_mut().0 }.pack();
    });
    Left::Packed { rows: a.rows, cols: a.cols, blocks: out.as_chunks().0 }
}

/// Packs at most 32 rows of A if `left`, else of the transpose of B.
pub struct Strip<'a> {
    /// Contiguous along its rows or its columns.
    pub x: Mat<'a, f32>,
    /// Whether it belongs to a left factor.
    pub left: bool,
    /// A block for each 32 columns, filled up with zeros.
    pub out: &'a mut [Block],
}

impl Strip<'_> {
    /// On this thread.
    pub fn pack(self) {
        simd::dispatch_narrowing(self);
    }
}

impl Kernel for Strip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { x, left, out } = self;
        let along = x.col_stride == 1;
        assert!(along || x.row_stride == 1, "a factor must be contiguous along its rows or its columns");
        for (block, out) in out.iter_mut().enumerate() {
            for (half, out) in out.as_chunks_mut::<{ SIDE * LANES }>().0.iter_mut().enumerate() {
                let (row, k) = (half * LANES, block * SIDE);
                let whole = row + LANES <= x.rows && k + SIDE <= x.cols;
                let out = out.as_chunks_mut::<SIDE>().0;
                // Constant, so that the compiler makes a version without tests.
                match (along, whole) {
                    (true, true) => rows::<I, true>(x, row, k, out),
                    (true, false) => rows::<I, false>(x, row, k, out),
                    (false, true) => columns::<I, true>(x, row, k, out),
                    (false, false) => columns::<I, false>(x, row, k, out),
                }
                if along != left {
                    let mut words = [I::F32::zero(); LANES];
                    for i in 0..LANES {
                        words[i] = load_words(&out[i]);
                    }
                    let words = Lanes::transpose(words);
                    for i in 0..LANES {
                        store_words(words[i], &mut out[i]);
                    }
                }
            }
        }
    }
}

/// Word p of `out[i]` is the pair at k + 2p of row i: x is contiguous along its rows.
#[inline(always)]
fn rows<I: Isa, const WHOLE: bool>(x: Mat<'_, f32>, row: usize, k: usize, out: &mut [[bf16; SIDE]]) {
    for i in 0..LANES {
        let mut halves = [I::F32::zero(); 2];
        if WHOLE {
            let from = &x.data[(row + i) * x.row_stride + k..][..SIDE];
            halves = [I::F32::load(from), I::F32::load(&from[LANES..])];
        } else if row + i < x.rows {
            let from = &x.data[(row + i) * x.row_stride..];
            halves = [part::<I>(from, k, x.cols), part::<I>(from, k + LANES, x.cols)];
        }
        store_words(I::narrow(halves[0], halves[1]), &mut out[i]);
    }
}

/// Word i of `out[p]` is the pair at k + 2p of row i: x is contiguous along its columns.
#[inline(always)]
fn columns<I: Isa, const WHOLE: bool>(x: Mat<'_, f32>, row: usize, k: usize, out: &mut [[bf16; SIDE]]) {
    for p in 0..LANES {
        let mut pair = [I::F32::zero(); 2];
        for odd in 0..2 {
            let k = k + 2 * p + odd;
            if WHOLE {
                pair[odd] = I::F32::load(&x.data[k * x.col_stride + row..]);
            } else if k < x.cols {
                pair[odd] = part::<I>(&x.data[k * x.col_stride..], row, x.rows);
            }
        }
        store_words(I::pair(pair[0], pair[1]), &mut out[p]);
    }
}

/// Sixteen elements of a line of `len`, zeros beyond its end.
#[inline(always)]
fn part<I: Isa>(line: &[f32], at: usize, len: usize) -> I::F32 {
    match len.saturating_sub(at) {
        LANES.. => I::F32::load(&line[at..]),
        0 => I::F32::zero(),
        rest => I::F32::load_partial(&line[at..][..rest], 0.0),
    }
}
