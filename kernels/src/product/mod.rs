//! Products of small matrices inside one thread, C = A·B or C += A·B: the inner loops of attention.
//!
//! A block of 32 queries and a band of keys fit into the caches, so there is no blocking. B and C have contiguous rows.
//! A is read one element at a time; the distance between its rows is constant, which saves a register per row. As in
//! the large product, every element of C is one chain of fused multiply-adds over k = 0, 1, 2, …, on any instruction
//! set.

mod pack;

pub use pack::{gather, pack, packed_len, transpose};

use engine::Want;
use engine::simd::{Isa, LANES, Lanes, Real};

/// Lanes of a block, the length of its rows: two groups of sixteen.
pub const BLOCK: usize = 2 * LANES;

/// The left factor A [m, k].
#[derive(Clone, Copy)]
pub enum Left<'a, T> {
    /// Rows packed by [`pack`], from row `first` on, a multiple of eight.
    Packed { panels: &'a [T], first: usize },
    /// The rows of a block, from lane `lane` on: a[i, p] = block[i, lane + p].
    Block { block: &'a [T], lane: usize },
    /// Its transpose: a[i, p] = block[p, lane + i].
    Transposed { block: &'a [T], lane: usize },
}

/// The right factor B, or a matrix to pack: some columns from `column` on of a matrix with rows of `width` numbers.
#[derive(Clone, Copy)]
pub struct Right<'a, T> {
    pub data: &'a [T],
    pub width: usize,
    pub column: usize,
}

impl<'a, T> Right<'a, T> {
    /// Rows of `width` numbers without gaps.
    #[inline(always)]
    pub fn rows(data: &'a [T], width: usize) -> Self {
        Self { data, width, column: 0 }
    }

    /// The same columns from row `first` on.
    #[inline(always)]
    pub fn skip(self, first: usize) -> Self {
        Self { data: &self.data[first * self.width..], ..self }
    }
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

/// m, n and k.
#[derive(Clone, Copy)]
pub struct Size {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// C [m, n] = A [m, k] · B [k, n], or added to C.
#[inline(always)]
pub fn product<I: Isa, T: Real>(c: &mut impl Rows<T>, size: Size, a: Left<'_, T>, b: Right<'_, T>, how: Want) {
    assert!(how != Want::Skip, "the product must be wanted");
    // The tile's sums leave enough registers for a row of B and an element of A.
    match I::REGISTERS / <T::Lanes<I> as Lanes<T>>::REGISTERS {
        32.. => columns::<I, T, 8, 2>(c, size, a, b, how),
        16.. => columns::<I, T, 8, 1>(c, size, a, b, how),
        8.. => columns::<I, T, 4, 1>(c, size, a, b, how),
        4.. => columns::<I, T, 2, 1>(c, size, a, b, how),
        _ => columns::<I, T, 1, 1>(c, size, a, b, how),
    }
}

/// Cuts n into groups of G sixteens, single sixteens, and the rest.
#[inline(always)]
fn columns<I: Isa, T: Real, const M: usize, const G: usize>(
    c: &mut impl Rows<T>,
    size: Size,
    a: Left<'_, T>,
    b: Right<'_, T>,
    how: Want,
) {
    let mut at = 0;
    while size.n - at >= G * LANES {
        rows::<I, T, M, G, true>(c, size, a, b, how, Place { at, len: G * LANES });
        at += G * LANES;
    }
    while G > 1 && size.n - at >= LANES {
        rows::<I, T, M, 1, true>(c, size, a, b, how, Place { at, len: LANES });
        at += LANES;
    }
    if at < size.n {
        rows::<I, T, M, 1, false>(c, size, a, b, how, Place { at, len: size.n - at });
    }
}

/// Cuts m into tiles of M rows and single ones.
#[inline(always)]
fn rows<I: Isa, T: Real, const M: usize, const G: usize, const WHOLE: bool>(
    c: &mut impl Rows<T>,
    Size { m, k, .. }: Size,
    a: Left<'_, T>,
    b: Right<'_, T>,
    how: Want,
    place: Place<WHOLE>,
) {
    let body = m - m % M;
    for i in (0..body).step_by(M) {
        tile::<I, T, M, G, WHOLE>(c, i, k, a, b, how, place);
    }
    for i in body..m {
        tile::<I, T, 1, G, WHOLE>(c, i, k, a, b, how, place);
    }
}

/// M rows from `row` on, all sums in registers.
#[inline(always)]
fn tile<I: Isa, T: Real, const M: usize, const G: usize, const WHOLE: bool>(
    c: &mut impl Rows<T>,
    row: usize,
    k: usize,
    a: Left<'_, T>,
    b: Right<'_, T>,
    how: Want,
    place: Place<WHOLE>,
) {
    // Checks bounds once, so that only one comparison per row remains.
    assert!(b.data.len() >= k * b.width, "B has fewer rows than A has columns");
    let (mut right, column) = (b.data.chunks_exact(b.width), b.column);
    let mut sums = [[T::Lanes::<I>::zero(); G]; M];
    if how == Want::Add {
        for i in 0..M {
            sums[i] = place.load::<I, T, G>(c.row(row + i));
        }
    }
    match a {
        Left::Packed { panels, first } => {
            let (panel, offset) = ((first + row) / LANES, (first + row) % LANES);
            let panel = panels[panel * LANES * k..][..LANES * k].as_chunks::<LANES>().0;
            for a in panel {
                let (a, Some(b)) = (&a[offset..][..M], right.next()) else { break };
                let b = place.load::<I, T, G>(&b[column..]);
                for i in 0..M {
                    step::<I, T, G>(&mut sums[i], a[i], &b);
                }
            }
        }
        Left::Block { block, lane } => {
            let mut a = [&block[..0]; M];
            for i in 0..M {
                a[i] = &block[(row + i) * BLOCK + lane..][..k];
            }
            for p in 0..k {
                let Some(b) = right.next() else { break };
                let b = place.load::<I, T, G>(&b[column..]);
                for i in 0..M {
                    step::<I, T, G>(&mut sums[i], a[i][p], &b);
                }
            }
        }
        Left::Transposed { block, lane } => {
            for a in &block.as_chunks::<BLOCK>().0[..k] {
                let (a, Some(b)) = (&a[lane + row..][..M], right.next()) else { break };
                let b = place.load::<I, T, G>(&b[column..]);
                for i in 0..M {
                    step::<I, T, G>(&mut sums[i], a[i], &b);
                }
            }
        }
    }
    for i in 0..M {
        place.store::<I, T, G>(&sums[i], c.row(row + i));
    }
}

/// Adds an element of A times a row of B to a row of C.
#[inline(always)]
fn step<I: Isa, T: Real, const G: usize>(sums: &mut [T::Lanes<I>; G], a: T, columns: &[T::Lanes<I>; G]) {
    let a = T::Lanes::<I>::splat(a);
    for g in 0..G {
        sums[g] = a.mul_add(columns[g], sums[g]);
    }
}

/// The columns of B and C that a tile covers, `len` from `at` on: whole sixteens if `WHOLE`, else fewer than sixteen.
#[derive(Clone, Copy)]
struct Place<const WHOLE: bool> {
    at: usize,
    len: usize,
}

impl<const WHOLE: bool> Place<WHOLE> {
    /// The tile's columns of a row.
    #[inline(always)]
    fn load<I: Isa, T: Real, const G: usize>(self, row: &[T]) -> [T::Lanes<I>; G] {
        let mut columns = [T::Lanes::<I>::zero(); G];
        if WHOLE {
            let row = &row[self.at..][..G * LANES];
            for g in 0..G {
                columns[g] = T::Lanes::<I>::load(&row[g * LANES..]);
            }
        } else {
            columns[0] = T::Lanes::<I>::load_partial(&row[self.at..][..self.len], T::ZERO);
        }
        columns
    }

    #[inline(always)]
    fn store<I: Isa, T: Real, const G: usize>(self, columns: &[T::Lanes<I>; G], row: &mut [T]) {
        if WHOLE {
            let row = &mut row[self.at..][..G * LANES];
            for g in 0..G {
                columns[g].store(&mut row[g * LANES..]);
            }
        } else {
            columns[0].store_partial(&mut row[self.at..][..self.len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use engine::simd::{self, Kernel};

    /// Packs the rows of `x`, or multiplies.
    enum Task<'a, T> {
        Pack { x: Right<'a, T>, rows: usize, columns: usize, panels: &'a mut [T] },
        Multiply { c: RowsMut<'a, T>, size: Size, a: Left<'a, T>, b: Right<'a, T>, how: Want },
    }

    impl<T: Real> Kernel for Task<'_, T> {
        type Output = ();
        #[inline(always)]
        fn run<I: Isa>(self) {
            match self {
                Self::Pack { x, rows, columns, panels } => pack::<I, T>(x, rows, columns, panels),
                Self::Multiply { mut c, size, a, b, how } => product::<I, T>(&mut c, size, a, b, how),
            }
        }
    }

    fn matches_definition<T: Real>(size: Size) {
        let Size { m, n, k } = size;
        let (first, lane, stride) = (8, 3, n + 3);
        let (b, old) = (random::<T>(k * stride, 2), random::<T>(m * (n + 2), 3));
        let block = random::<T>(m.max(k) * BLOCK, 1);
        let mut panels = vec![T::NEG_INFINITY; packed_len(first + m, k)];
        let rows = random::<T>((first + m) * (k + 1), 4);
        let x = Right { data: &rows[..], width: k + 1, column: 1 };
        simd::dispatch(Task::Pack { x, rows: first + m, columns: k, panels: &mut panels });
        let lefts = [
            (Left::Packed { panels: &panels, first }, 0),
            (Left::Block { block: &block, lane }, k),
            (Left::Transposed { block: &block, lane }, m),
        ];
        for (left, _) in lefts.into_iter().filter(|(_, lanes)| lane + lanes <= BLOCK) {
            let a = |i: usize, p: usize| match left {
                Left::Packed { .. } => rows[(first + i) * (k + 1) + 1 + p],
                Left::Block { block, lane } => block[i * BLOCK + lane + p],
                Left::Transposed { block, lane } => block[p * BLOCK + lane + i],
            };
            for how in [Want::Write, Want::Add] {
                let mut expected = old.clone();
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let c = &mut expected[i * (n + 2) + j];
                    let first = if how == Want::Add { *c } else { T::ZERO };
                    *c = (0..k).fold(first, |sum, p| Real::mul_add(a(i, p), b[p * stride + 2 + j], sum));
                }
                let mut got = old.clone();
                let b = Right { data: &b[..], width: stride, column: 2 };
                let c = RowsMut { data: &mut got, stride: n + 2 };
                simd::dispatch(Task::Multiply { c, size, a: left, b, how });
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
}
