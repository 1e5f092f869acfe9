//! Products of small matrices inside one thread, C = A·B or C += A·B: the inner loops of attention.
//!
//! The sizes are those of a block of queries and a band of keys, small enough for the caches, so that nothing is packed
//! or cut. C and B have contiguous rows; A is read one element at a time and may be contiguous in either direction. As in
//! the large product, every element of C is one chain of fused multiply-adds over k = 0, 1, 2, …, whatever the tile and
//! the instruction set.

use engine::simd::{Isa, LANES, Lanes, Real};
use std::array::from_fn;

/// The left factor A [m, k].
#[derive(Clone, Copy)]
pub enum Left<'a, T> {
    /// Row i begins at `data[i·stride]` and is contiguous.
    Rows { data: &'a [T], stride: usize },
    /// Column k begins at `data[k·stride]` and is contiguous.
    Columns { data: &'a [T], stride: usize },
}

/// The right factor B [k, n]: row k begins at `data[k·stride]` and is contiguous.
#[derive(Clone, Copy)]
pub struct Right<'a, T> {
    pub data: &'a [T],
    pub stride: usize,
}

/// The rows of C, each at least n long.
pub trait Rows<T> {
    fn row(&mut self, i: usize) -> &mut [T];
}

/// Row i begins at `data[i·stride]`.
pub struct RowsMut<'a, T> {
    pub data: &'a mut [T],
    pub stride: usize,
}

impl<T> Rows<T> for RowsMut<'_, T> {
    #[inline(always)]
    fn row(&mut self, i: usize) -> &mut [T] {
        &mut self.data[i * self.stride..]
    }
}

/// Where the sums begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At zero.
    Zero,
    /// At what C holds.
    C,
}

/// m, n and k.
#[derive(Clone, Copy)]
pub struct Size {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// C [m, n] = A [m, k] · B [k, n], or added to C.
#[inline(always)]
pub fn product<I: Isa, T: Real>(c: &mut impl Rows<T>, size: Size, a: Left<'_, T>, b: Right<'_, T>, start: Start) {
    // Registers for sums, in lanes: the rest holds a row of B and an element of A.
    match I::REGISTERS / <T::Lanes<I> as Lanes<T>>::REGISTERS {
        32.. => columns::<I, T, 8, 2>(c, size, a, b, start),
        16.. => columns::<I, T, 8, 1>(c, size, a, b, start),
        8.. => columns::<I, T, 4, 1>(c, size, a, b, start),
        4.. => columns::<I, T, 2, 1>(c, size, a, b, start),
        _ => columns::<I, T, 1, 1>(c, size, a, b, start),
    }
}

/// Cuts n into groups of G sixteens, single sixteens, and the rest.
#[inline(always)]
fn columns<I: Isa, T: Real, const M: usize, const G: usize>(
    c: &mut impl Rows<T>,
    size: Size,
    a: Left<'_, T>,
    b: Right<'_, T>,
    start: Start,
) {
    let mut at = 0;
    while size.n - at >= G * LANES {
        rows::<I, T, M, G>(c, size, a, b, start, Whole { at });
        at += G * LANES;
    }
    while G > 1 && size.n - at >= LANES {
        rows::<I, T, M, 1>(c, size, a, b, start, Whole { at });
        at += LANES;
    }
    if at < size.n {
        rows::<I, T, M, 1>(c, size, a, b, start, Part { at, len: size.n - at });
    }
}

/// Cuts m into tiles of M rows and single ones.
#[inline(always)]
fn rows<I: Isa, T: Real, const M: usize, const G: usize>(
    c: &mut impl Rows<T>,
    Size { m, k, .. }: Size,
    a: Left<'_, T>,
    b: Right<'_, T>,
    start: Start,
    place: impl Place<T>,
) {
    let body = m - m % M;
    for i in (0..body).step_by(M) {
        tile::<I, T, M, G>(c, i, k, a, b, start, place);
    }
    for i in body..m {
        tile::<I, T, 1, G>(c, i, k, a, b, start, place);
    }
}

/// M rows from `row` on, all sums in registers.
#[inline(always)]
fn tile<I: Isa, T: Real, const M: usize, const G: usize>(
    c: &mut impl Rows<T>,
    row: usize,
    k: usize,
    a: Left<'_, T>,
    b: Right<'_, T>,
    start: Start,
    place: impl Place<T>,
) {
    let mut sums = [[T::Lanes::<I>::zero(); G]; M];
    if start == Start::C {
        for i in 0..M {
            for g in 0..G {
                sums[i][g] = place.load::<I>(c.row(row + i), g);
            }
        }
    }
    match a {
        Left::Rows { data, stride } => {
            let a: [&[T]; M] = from_fn(|i| &data[(row + i) * stride..][..k]);
            for (p, b) in b.data.chunks(b.stride).take(k).enumerate() {
                step::<I, T, M, G>(&mut sums, from_fn(|i| a[i][p]), b, place);
            }
        }
        Left::Columns { data, stride } => {
            for (a, b) in data.chunks(stride).zip(b.data.chunks(b.stride)).take(k) {
                let a = &a[row..][..M];
                step::<I, T, M, G>(&mut sums, from_fn(|i| a[i]), b, place);
            }
        }
    }
    for i in 0..M {
        for g in 0..G {
            place.store::<I>(sums[i][g], c.row(row + i), g);
        }
    }
}

/// One k: a column of A times a row of B.
#[inline(always)]
fn step<I: Isa, T: Real, const M: usize, const G: usize>(
    sums: &mut [[T::Lanes<I>; G]; M],
    a: [T; M],
    b: &[T],
    place: impl Place<T>,
) {
    let mut row = [T::Lanes::<I>::zero(); G];
    for g in 0..G {
        row[g] = place.load::<I>(b, g);
    }
    for i in 0..M {
        let a = T::Lanes::<I>::splat(a[i]);
        for g in 0..G {
            sums[i][g] = a.mul_add(row[g], sums[i][g]);
        }
    }
}

/// Which columns of C and B a tile covers.
trait Place<T: Real>: Copy {
    /// The `g`-th sixteen of them.
    fn load<I: Isa>(self, row: &[T], g: usize) -> T::Lanes<I>;
    fn store<I: Isa>(self, lanes: T::Lanes<I>, row: &mut [T], g: usize);
}

/// Whole sixteens from `at` on.
#[derive(Clone, Copy)]
struct Whole {
    at: usize,
}

impl<T: Real> Place<T> for Whole {
    #[inline(always)]
    fn load<I: Isa>(self, row: &[T], g: usize) -> T::Lanes<I> {
        T::Lanes::<I>::load(&row[self.at + g * LANES..][..LANES])
    }

    #[inline(always)]
    fn store<I: Isa>(self, lanes: T::Lanes<I>, row: &mut [T], g: usize) {
        lanes.store(&mut row[self.at + g * LANES..][..LANES]);
    }
}

/// The last `len` < 16 columns, from `at` on.
#[derive(Clone, Copy)]
struct Part {
    at: usize,
    len: usize,
}

impl<T: Real> Place<T> for Part {
    #[inline(always)]
    fn load<I: Isa>(self, row: &[T], _g: usize) -> T::Lanes<I> {
        T::Lanes::<I>::load_partial(&row[self.at..][..self.len], T::ZERO)
    }

    #[inline(always)]
    fn store<I: Isa>(self, lanes: T::Lanes<I>, row: &mut [T], _g: usize) {
        lanes.store_partial(&mut row[self.at..][..self.len]);
    }
}

/// Rows of a block that stand side by side in its transpose: two groups of lanes.
pub const BLOCK: usize = 2 * LANES;

/// `block` [columns, 32] = `factor` times the transpose of the first `rows` ≤ 32 rows of `x`, zeros in the other lanes.
#[inline(always)]
pub fn transpose<I: Isa, T: Real>(x: Right<'_, T>, rows: usize, factor: T, block: &mut [T]) {
    let columns = block.len() / BLOCK;
    let body = if rows == BLOCK { columns - columns % LANES } else { 0 };
    let lanes = T::Lanes::<I>::splat(factor);
    for i in [0, LANES] {
        for j in (0..body).step_by(LANES) {
            let mut square = [T::Lanes::<I>::zero(); LANES];
            for r in 0..LANES {
                square[r] = T::Lanes::<I>::load(&x.data[(i + r) * x.stride + j..]).mul(lanes);
            }
            let square = T::Lanes::<I>::transpose(square);
            for r in 0..LANES {
                square[r].store(&mut block[(j + r) * BLOCK + i..]);
            }
        }
    }
    for j in body..columns {
        let lanes = &mut block[j * BLOCK..][..BLOCK];
        lanes[rows..].fill(T::ZERO);
        for i in 0..rows {
            lanes[i] = x.data[i * x.stride + j] * factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::rng::Stream;
    use engine::simd::{self, Kernel};

    fn random<T: Real>(len: usize, site: u32) -> Vec<T> {
        (0..len as u32).map(|i| T::from_f64(Stream::new(4, site).normal(i))).collect()
    }

    struct Product<'a, T> {
        c: &'a mut [T],
        stride: usize,
        size: Size,
        a: Left<'a, T>,
        b: Right<'a, T>,
        start: Start,
    }

    impl<T: Real> Kernel for Product<'_, T> {
        type Output = ();
        #[inline(always)]
        fn run<I: Isa>(self) {
            product::<I, T>(&mut RowsMut { data: self.c, stride: self.stride }, self.size, self.a, self.b, self.start);
        }
    }

    fn matches_definition<T: Real>(size: Size) {
        let Size { m, n, k } = size;
        let (a, b, old) =
            (random::<T>(m * (k + 1) + k * m, 1), random::<T>(k * (n + 3), 2), random::<T>(m * (n + 2), 3));
        let right = Right { data: &b[..], stride: n + 3 };
        for (left, row, column) in [
            (Left::Rows { data: &a[..], stride: k + 1 }, k + 1, 1),
            (Left::Columns { data: &a[..], stride: m + 1 }, 1, m + 1),
        ] {
            for start in [Start::Zero, Start::C] {
                let mut expected = old.clone();
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let c = &mut expected[i * (n + 2) + j];
                    let first = if start == Start::C { *c } else { T::ZERO };
                    *c = (0..k).fold(first, |sum, p| Real::mul_add(a[i * row + p * column], b[p * (n + 3) + j], sum));
                }
                let mut got = old.clone();
                simd::dispatch(Product { c: &mut got, stride: n + 2, size, a: left, b: right, start });
                assert!(got == expected, "[{m}, {n}, {k}]");
            }
        }
    }

    #[test]
    fn every_level_gives_the_bits_of_the_definition() {
        simd::for_each_level(|_| {
            for [m, n, k] in [[1, 1, 1], [1, 2, 3], [8, 32, 5], [9, 48, 4], [16, 64, 17], [21, 67, 33], [3, 16, 2]] {
                matches_definition::<f32>(Size { m, n, k });
                matches_definition::<f64>(Size { m, n, k });
            }
        });
    }

    struct Transpose<'a> {
        x: Right<'a, f32>,
        rows: usize,
        block: &'a mut [f32],
    }

    impl Kernel for Transpose<'_> {
        type Output = ();
        #[inline(always)]
        fn run<I: Isa>(self) {
            transpose::<I, f32>(self.x, self.rows, 0.5, self.block);
        }
    }

    #[test]
    fn transposes_what_is_there() {
        for [rows, columns] in [[1, 2], [32, 20], [32, 32], [13, 33]] {
            let stride = columns + 1;
            let x = random::<f32>(rows * stride, 5);
            let mut block = vec![7.0; columns * BLOCK];
            simd::dispatch(Transpose { x: Right { data: &x, stride }, rows, block: &mut block });
            for (j, lanes) in block.chunks(BLOCK).enumerate() {
                assert!((0..rows).all(|i| lanes[i] == 0.5 * x[i * stride + j]));
                assert!(lanes[rows..].iter().all(|&x| x == 0.0));
            }
        }
    }
}
