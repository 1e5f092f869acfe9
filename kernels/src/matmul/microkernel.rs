//! The innermost product: a few rows of A by sixteen or thirty-two columns of B, with all of C's elements in registers.

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

    /// With one register to a group (AVX-512), a panel of A stays in L1 (f32: 28 KiB) and B comes from an L2 of 2 MiB (a block
    /// of 1 MiB). With more, a panel of B stays there (24 KiB), A comes from an L2 of 512 KiB (a block of 216 KiB), at three
    /// eighths of the bytes that B would be per multiply-add, and B waits in L3.
    pub const fn blocking<I: Isa, T: Real>() -> Blocking {
        let panel = Self::rows::<I, T>();
        if Self::groups::<I, T>() == 2 {
            Blocking { panel, rows: panel, depth: 512, depth_across: 256, cols: 512 }
        } else {
            Blocking { panel, rows: 144 / panel * panel, depth: 384, depth_across: 384, cols: 2048 }
        }
    }

    /// The lowest kernel that computes `rows` rows.
    pub const fn height<I: Isa, T: Real>(rows: usize) -> usize {
        let most = Self::rows::<I, T>();
        // What `product` and the packing of A have kernels for.
        const { assert!(matches!(Self::rows::<I, T>(), 1 | 2 | 6 | 14)) };
        let height = match rows {
            0..=1 => 1,
            2 => 2,
            3..=6 => 6,
            _ => 14,
        };
        if height < most { height } else { most }
    }
}

/// How a product is cut so that its parts fit into the caches.
#[derive(Clone, Copy, Debug)]
pub struct Blocking {
    /// Rows of a panel of A.
    pub panel: usize,
    /// Rows of a block of A, packed together: a multiple of `panel`.
    pub rows: usize,
    /// Most k of a block of A and of a panel of B. Deeper means fewer passes over C.
    pub depth: usize,
    /// Most k where A lies along its columns: a panel then takes a cache line from every k, often a power of two apart, few of
    /// which L1 can hold.
    pub depth_across: usize,
    /// Most columns of a tile of C, and so of a block of B.
    pub cols: usize,
}

/// Columns of B as the micro-kernel reads them: sixteen elements at `k·stride + g·group` for each k and each group g of sixteen
/// columns.
#[derive(Clone, Copy)]
pub struct Columns<'a, T> {
    data: &'a [T],
    stride: usize,
    group: usize,
}

impl<'a, T> Columns<'a, T> {
    /// Packed panels, one after the other, which have `depth` rows each.
    pub fn packed(data: &'a [T], depth: usize) -> Self {
        Self { data, stride: PANEL, group: PANEL * depth }
    }

    /// Rows of a matrix, `stride` apart.
    pub fn rows(data: &'a [T], stride: usize) -> Self {
        Self { data, stride, group: LANES }
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

/// C = A·B or C + A·B in `block`, which has at most `height` rows and [`Geometry::groups`] times sixteen columns.
///
/// `a` is a packed panel `height` wide; the columns of B are filled up to a multiple of sixteen.
#[inline(always)]
pub fn product<I: Isa, T: Real>(
    height: usize,
    a: &[T],
    b: Columns<'_, T>,
    c: &mut Tile<'_, T>,
    block: Block,
    start: Start,
) {
    // A constant, but for the last columns of C.
    let one = Geometry::groups::<I, T>() == 1 || block.cols <= LANES;
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
    start: Start,
) {
    if block.rows == M && block.cols == G * LANES {
        return chains::<I, T, M, G>(c.block(block.row, block.col), a, b, start);
    }
    // At the edges of C, a copy of full size.
    let mut copy = [[[T::ZERO; LANES]; G]; M];
    if start == Start::C {
        for i in 0..block.rows {
            let old = c.row(block.row + i, block.col, block.cols);
            copy[i].as_flattened_mut()[..block.cols].copy_from_slice(old);
        }
    }
    chains::<I, T, M, G>(copy.each_mut().map(|row| row.each_mut()), a, b, start);
    for i in 0..block.rows {
        let new = &copy[i].as_flattened()[..block.cols];
        c.row(block.row + i, block.col, block.cols).copy_from_slice(new);
    }
}

/// One k: M elements of A times as many columns of B as there are sums.
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

/// All loops but the one over k have constant lengths and are unrolled, so that every index is a constant: that is what
/// lets the compiler keep the sums in registers.
#[inline(always)]
fn chains<I: Isa, T: Real, const M: usize, const G: usize>(
    c: [[&mut [T; LANES]; G]; M],
    a: &[T],
    b: Columns<'_, T>,
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
    if b.stride == PANEL {
        // With all distances known and four steps to a turn, nothing but multiply-adds asks for their ports.
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
