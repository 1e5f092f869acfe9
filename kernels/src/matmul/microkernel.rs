//! The innermost product: a few rows of A by sixteen or thirty-two columns of B, with all of C's elements in registers.

use super::geometry::{self, PANEL};
use super::mat::Start;
use super::tiles::Tile;
use engine::Want;
use engine::simd::{Isa, LANES, Lanes, Real};

/// Columns of B as the micro-kernel reads them: sixteen elements at `k·stride + g·group` for each k and each group g of sixteen
/// columns.
#[derive(Clone, Copy)]
pub struct Columns<'a, T> {
    pub data: &'a [T],
    pub stride: usize,
    pub group: usize,
}

/// A rectangle of C: its first row and column in the tile, and how many of both to compute.
#[derive(Clone, Copy)]
pub struct Block {
    pub row: usize,
    pub col: usize,
    pub rows: usize,
    pub cols: usize,
}

/// C = A·B or C + A·B in `block`, which has at most `height` rows and [`geometry::groups`] times sixteen columns.
///
/// `a` is a packed panel `height` wide; the columns of B are filled up to a multiple of sixteen.
#[inline(always)]
pub fn product<I: Isa, T: Real>(
    height: usize,
    a: &[T],
    b: Columns<'_, T>,
    c: &mut Tile<'_, T>,
    block: Block,
    start: Start<'_, T>,
) {
    // Constant, except for the last columns of C.
    let one = geometry::groups::<I, T>() == 1 || block.cols <= LANES;
    match (height, one) {
        (1, true) => rows::<I, T, 1, 1>(a, b, c, block, start),
        (2, true) => rows::<I, T, 2, 1>(a, b, c, block, start),
        (6, true) => rows::<I, T, 6, 1>(a, b, c, block, start),
        (_, true) => rows::<I, T, 14, 1>(a, b, c, block, start),
        (1, _) => rows::<I, T, 1, 2>(a, b, c, block, start),
        (2, _) => rows::<I, T, 2, 2>(a, b, c, block, start),
        (6, _) => rows::<I, T, 6, 2>(a, b, c, block, start),
        (_, _) => rows::<I, T, 14, 2>(a, b, c, block, start),
    }
}

#[inline(always)]
fn rows<I: Isa, T: Real, const M: usize, const G: usize>(
    a: &[T],
    b: Columns<'_, T>,
    c: &mut Tile<'_, T>,
    block: Block,
    start: Start<'_, T>,
) {
    if block.rows == M && block.cols == G * LANES {
        let place = [c.rows.start + block.row, c.cols.start + block.col];
        return chains::<I, T, M, G>(c.block(block.row, block.col), a, b, start, place);
    }
    // At the edges of C, a copy of full size.
    let mut copy = [[[T::ZERO; LANES]; G]; M];
    if start.want == Want::Add {
        let (top, left) = (c.rows.start + block.row, c.cols.start + block.col);
        for i in 0..block.rows {
            let old = match start.onto {
                Some(r) => r.row(top + i, left..left + block.cols),
                None => c.row(block.row + i, block.col, block.cols),
            };
            copy[i].as_flattened_mut()[..block.cols].copy_from_slice(old);
        }
    }
    let start = Start { onto: None, ..start };
    chains::<I, T, M, G>(copy.each_mut().map(|row| row.each_mut()), a, b, start, [0, 0]);
    for i in 0..block.rows {
        let new = &copy[i].as_flattened()[..block.cols];
        c.row(block.row + i, block.col, block.cols).copy_from_slice(new);
    }
}

/// One k: M elements of A times the columns of B that have sums.
#[inline(always)]
fn step<I: Isa, T: Real, const M: usize, const G: usize>(
    sums: &mut [[T::Lanes<I>; G]; M],
    a: &[T; M],
    b: [&[T; LANES]; G],
) {
    let mut columns = [T::Lanes::<I>::zero(); G];
    for g in 0..G {
        columns[g] = T::Lanes::<I>::load(b[g]);
    }
    for i in 0..M {
        let element = T::Lanes::<I>::splat(a[i]);
        for g in 0..G {
            sums[i][g] = element.mul_add(columns[g], sums[i][g]);
        }
    }
}

/// `c` begins at `row` and `col` of the whole matrix, which find its place in `start.onto`.
///
/// All loops but the one over k have constant lengths and are unrolled, so that every index is a constant. Only then does the
/// compiler keep the sums in registers.
#[inline(always)]
fn chains<I: Isa, T: Real, const M: usize, const G: usize>(
    c: [[&mut [T; LANES]; G]; M],
    a: &[T],
    b: Columns<'_, T>,
    start: Start<'_, T>,
    [row, col]: [usize; 2],
) {
    let mut sums = [[T::Lanes::<I>::zero(); G]; M];
    match start {
        Start { want: Want::Add, onto: None } => {
            for i in 0..M {
                for g in 0..G {
                    sums[i][g] = T::Lanes::<I>::load(c[i][g]);
                }
            }
        }
        Start { want: Want::Add, onto: Some(r) } => {
            for i in 0..M {
                let old = r.row(row + i, col..col + G * LANES);
                for g in 0..G {
                    sums[i][g] = T::Lanes::<I>::load(&old[g * LANES..]);
                }
            }
        }
        _ => {}
    }
    let a = a.as_chunks::<M>().0;
    if b.stride == PANEL {
        // With all strides constant and four steps per iteration, only multiply-adds use their execution ports.
        let b: [_; G] = std::array::from_fn(|g| &b.data[g * b.group..].as_chunks::<PANEL>().0[..a.len()]);
        let (a_turns, a_rest) = a.as_chunks::<4>();
        let turns = b.map(|b| &b.as_chunks::<4>().0[..a_turns.len()]);
        for (turn, a) in a_turns.iter().enumerate() {
            for p in 0..4 {
                step::<I, T, M, G>(&mut sums, &a[p], turns.map(|b| &b[turn][p]));
            }
        }
        let done = a.len() - a_rest.len();
        for (p, a) in a_rest.iter().enumerate() {
            step::<I, T, M, G>(&mut sums, a, b.map(|b| &b[done + p]));
        }
    } else {
        for (p, a) in a.iter().enumerate() {
            let row = b.data[p * b.stride..].as_chunks::<LANES>().0;
            step::<I, T, M, G>(&mut sums, a, std::array::from_fn(|g| &row[g]));
        }
    }
    for i in 0..M {
        for g in 0..G {
            sums[i][g].store(c[i][g]);
        }
    }
}
