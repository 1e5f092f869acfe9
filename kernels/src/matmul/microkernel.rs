//! The innermost product: a few rows of A by sixteen or thirty-two columns of B, with all of C's elements in registers.

use super::gemm::Mat;
use super::pack::PANEL;
use super::tiles::Tile;
use engine::simd::{Isa, LANES, Lanes, Real};

/// Where the sums begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At zero.
    Zero,
    /// At what C holds.
    C,
}

/// How many rows and groups of sixteen columns fit into the registers of `I`, beside one group of B and one element of A.
pub struct Geometry;

impl Geometry {
    /// Groups of sixteen columns: two where a group is one register, to use each broadcast of A twice.
    pub const fn groups<I: Isa, T: Real>() -> usize {
        if <T::Lanes<I> as Lanes<T>>::REGISTERS == 1 { 2 } else { 1 }
    }

    /// Rows: 14 on AVX-512, 6 on AVX2 and NEON, 1 without vectors; 2 for f64 on AVX2 and NEON.
    pub const fn rows<I: Isa, T: Real>() -> usize {
        let row = Self::groups::<I, T>() * <T::Lanes<I> as Lanes<T>>::REGISTERS;
        let rows = I::REGISTERS.saturating_sub(row + 1) / row;
        if rows == 0 { 1 } else { rows }
    }

    /// The lowest kernel that computes `rows` rows.
    pub const fn height<I: Isa, T: Real>(rows: usize) -> usize {
        let most = Self::rows::<I, T>();
        let height = match rows {
            0..=1 => 1,
            2 => 2,
            3..=6 => 6,
            _ => 14,
        };
        if height < most { height } else { most }
    }
}

/// A rectangle of C: rows and columns of the tile where it begins, and how many of both to compute.
#[derive(Clone, Copy)]
pub struct Block {
    pub row: usize,
    pub col: usize,
    pub rows: usize,
    pub cols: usize,
}

/// C = A·B or C + A·B in `block`, which has at most `height` rows and `groups` times sixteen columns.
///
/// `a` is a packed panel `height` wide. The block's columns of B begin at `column` of `b`, whose rows are contiguous and
/// filled up to a multiple of sixteen.
#[inline(always)]
pub fn product<I: Isa, T: Real>(
    height: usize,
    a: &[T],
    b: Mat<'_, T>,
    column: usize,
    c: &mut Tile<'_, T>,
    block: Block,
    start: Start,
) {
    match (height, Geometry::groups::<I, T>()) {
        (1, 1) => rows::<I, T, 1, 1>(a, b, column, c, block, start),
        (2, 1) => rows::<I, T, 2, 1>(a, b, column, c, block, start),
        (6, 1) => rows::<I, T, 6, 1>(a, b, column, c, block, start),
        (_, 1) => rows::<I, T, 14, 1>(a, b, column, c, block, start),
        (1, _) => rows::<I, T, 1, 2>(a, b, column, c, block, start),
        (2, _) => rows::<I, T, 2, 2>(a, b, column, c, block, start),
        (6, _) => rows::<I, T, 6, 2>(a, b, column, c, block, start),
        (_, _) => rows::<I, T, 14, 2>(a, b, column, c, block, start),
    }
}

#[inline(always)]
fn rows<I: Isa, T: Real, const M: usize, const G: usize>(
    a: &[T],
    b: Mat<'_, T>,
    column: usize,
    c: &mut Tile<'_, T>,
    block: Block,
    start: Start,
) {
    if block.rows == M && block.cols == G * LANES {
        return chains::<I, T, M, G>(c.block(block.row, block.col), a, b, column, start);
    }
    // At the edges of C, a copy of full size.
    let mut copy = [[[T::ZERO; LANES]; G]; M];
    if start == Start::C {
        for i in 0..block.rows {
            let old = c.row(block.row + i, block.col, block.cols);
            copy[i].as_flattened_mut()[..block.cols].copy_from_slice(old);
        }
    }
    chains::<I, T, M, G>(copy.each_mut().map(|row| row.each_mut()), a, b, column, start);
    for i in 0..block.rows {
        let new = &copy[i].as_flattened()[..block.cols];
        c.row(block.row + i, block.col, block.cols).copy_from_slice(new);
    }
}

/// One k: M elements of A times as many columns of B as there are sums.
#[inline(always)]
fn step<I: Isa, T: Real, const M: usize, const G: usize>(sums: &mut [[T::Lanes<I>; G]; M], a: &[T; M], b: &[T]) {
    let mut columns = [T::Lanes::<I>::zero(); G];
    for g in 0..G {
        columns[g] = T::Lanes::<I>::load(&b[g * LANES..]);
    }
    for i in 0..M {
        let element = T::Lanes::<I>::splat(a[i]);
        for g in 0..G {
            sums[i][g] = element.mul_add(columns[g], sums[i][g]);
        }
    }
}

/// All loops but the one over k have constant lengths and are unrolled, so that every index is a constant: that is what
/// lets the compiler keep the sums in registers.
#[inline(always)]
fn chains<I: Isa, T: Real, const M: usize, const G: usize>(
    c: [[&mut [T; LANES]; G]; M],
    a: &[T],
    b: Mat<'_, T>,
    column: usize,
    start: Start,
) {
    let mut sums = [[T::Lanes::<I>::zero(); G]; M];
    if start == Start::C {
        for i in 0..M {
            for g in 0..G {
                sums[i][g] = T::Lanes::<I>::load(c[i][g]);
            }
        }
    }
    let a = a.as_chunks::<M>().0;
    if b.row_stride() == PANEL {
        // Packed: with all distances known and four steps to a turn, nothing but multiply-adds asks for their ports.
        let b = &b.data().as_chunks::<PANEL>().0[..a.len()];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
        for (a, b) in a.iter().zip(b) {
            for p in 0..4 {
                step::<I, T, M, G>(&mut sums, &a[p], &b[p][column..]);
            }
        }
        for (a, b) in a_rest.iter().zip(b_rest) {
            step::<I, T, M, G>(&mut sums, a, &b[column..]);
        }
    } else {
        for (a, b) in a.iter().zip(b.data().chunks(b.row_stride())) {
            let Some(b) = b.get(column..column + G * LANES) else { break };
            step::<I, T, M, G>(&mut sums, a, b);
        }
    }
    for i in 0..M {
        for g in 0..G {
            sums[i][g].store(c[i][g]);
        }
    }
}
