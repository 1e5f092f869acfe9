//! Products of small matrices inside one thread, C = A·B or C += A·B: the inner loops of attention.
//!
//! The sizes are those of a block of 32 queries and a band of keys, small enough for the caches, so that nothing is cut
//! into blocks. B and C have contiguous rows. A is read one element at a time, and the distance between its rows is known
//! when this is compiled, or else a register would be spent on every row. As in the large product, every element of C is
//! one chain of fused multiply-adds over k = 0, 1, 2, …, whatever the tile and the instruction set.

use engine::simd::{Isa, LANES, Lanes, Real};

/// Lanes of a block, the length of its rows: two groups of sixteen.
pub const BLOCK: usize = 2 * LANES;

/// The left factor A [m, k].
#[derive(Clone, Copy)]
pub enum Left<'a, T> {
    /// The rows of what [`pack`] packed, from row `first` on, a multiple of eight.
    Packed { panels: &'a [T], first: usize },
    /// The rows of a block, from lane `lane` on: a[i, p] = block[i, lane + p].
    Block { block: &'a [T], lane: usize },
    /// Its transpose: a[i, p] = block[p, lane + i].
    Transposed { block: &'a [T], lane: usize },
}

/// The right factor B, or what is to be packed: some columns from `column` on of a matrix with rows of `width` numbers.
#[derive(Clone, Copy)]
pub struct Right<'a, T> {
    pub data: &'a [T],
    pub width: usize,
    pub column: usize,
}

impl<'a, T> Right<'a, T> {
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
    // One comparison a row: all else that could be out of bounds does not change from row to row.
    assert!(b.data.len() >= k * b.width, "B has fewer rows than A has columns");
    let (mut right, column) = (b.data.chunks_exact(b.width), b.column);
    let mut sums = [[T::Lanes::<I>::zero(); G]; M];
    if start == Start::C {
        for i in 0..M {
            sums[i] = load::<I, T, G>(c.row(row + i), place);
        }
    }
    match a {
        Left::Packed { panels, first } => {
            let (panel, offset) = ((first + row) / LANES, (first + row) % LANES);
            let panel = panels[panel * LANES * k..][..LANES * k].as_chunks::<LANES>().0;
            for a in panel {
                let (a, Some(b)) = (&a[offset..][..M], right.next()) else { break };
                let b = load::<I, T, G>(&b[column..], place);
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
                let b = load::<I, T, G>(&b[column..], place);
                for i in 0..M {
                    step::<I, T, G>(&mut sums[i], a[i][p], &b);
                }
            }
        }
        Left::Transposed { block, lane } => {
            for a in &block.as_chunks::<BLOCK>().0[..k] {
                let (a, Some(b)) = (&a[lane + row..][..M], right.next()) else { break };
                let b = load::<I, T, G>(&b[column..], place);
                for i in 0..M {
                    step::<I, T, G>(&mut sums[i], a[i], &b);
                }
            }
        }
    }
    for i in 0..M {
        let row = place.cut_mut::<G>(c.row(row + i));
        for g in 0..G {
            place.store::<I>(sums[i][g], &mut row[g * LANES..]);
        }
    }
}

/// The tile's columns of a row.
#[inline(always)]
fn load<I: Isa, T: Real, const G: usize>(row: &[T], place: impl Place<T>) -> [T::Lanes<I>; G] {
    let row = place.cut::<G>(row);
    let mut columns = [T::Lanes::<I>::zero(); G];
    for g in 0..G {
        columns[g] = place.load::<I>(&row[g * LANES..]);
    }
    columns
}

/// An element of A times a row of B onto a row of C.
#[inline(always)]
fn step<I: Isa, T: Real, const G: usize>(sums: &mut [T::Lanes<I>; G], a: T, columns: &[T::Lanes<I>; G]) {
    let a = T::Lanes::<I>::splat(a);
    for g in 0..G {
        sums[g] = a.mul_add(columns[g], sums[g]);
    }
}

/// Which columns of B and C a tile covers.
trait Place<T: Real>: Copy {
    /// Of a row, those columns.
    fn cut<const G: usize>(self, row: &[T]) -> &[T];
    fn cut_mut<const G: usize>(self, row: &mut [T]) -> &mut [T];
    /// Sixteen of them.
    fn load<I: Isa>(self, columns: &[T]) -> T::Lanes<I>;
    fn store<I: Isa>(self, lanes: T::Lanes<I>, columns: &mut [T]);
}

/// G sixteens from `at` on.
#[derive(Clone, Copy)]
struct Whole {
    at: usize,
}

impl<T: Real> Place<T> for Whole {
    #[inline(always)]
    fn cut<const G: usize>(self, row: &[T]) -> &[T] {
        &row[self.at..][..G * LANES]
    }

    #[inline(always)]
    fn cut_mut<const G: usize>(self, row: &mut [T]) -> &mut [T] {
        &mut row[self.at..][..G * LANES]
    }

    #[inline(always)]
    fn load<I: Isa>(self, columns: &[T]) -> T::Lanes<I> {
        T::Lanes::<I>::load(columns)
    }

    #[inline(always)]
    fn store<I: Isa>(self, lanes: T::Lanes<I>, columns: &mut [T]) {
        lanes.store(columns);
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
    fn cut<const G: usize>(self, row: &[T]) -> &[T] {
        &row[self.at..][..self.len]
    }

    #[inline(always)]
    fn cut_mut<const G: usize>(self, row: &mut [T]) -> &mut [T] {
        &mut row[self.at..][..self.len]
    }

    #[inline(always)]
    fn load<I: Isa>(self, columns: &[T]) -> T::Lanes<I> {
        T::Lanes::<I>::load_partial(columns, T::ZERO)
    }

    #[inline(always)]
    fn store<I: Isa>(self, lanes: T::Lanes<I>, columns: &mut [T]) {
        lanes.store_partial(columns);
    }
}

/// `block` [columns, 32] = `factor` times the transpose of the first `rows` ≤ 32 rows of `x`, zeros in the other lanes.
#[inline(always)]
pub fn transpose<I: Isa, T: Real>(x: Right<'_, T>, rows: usize, factor: T, block: &mut [T]) {
    let columns = block.len() / BLOCK;
    for lane in [0, LANES] {
        let rows = rows.saturating_sub(lane).min(LANES);
        let x = if rows == 0 { x } else { x.skip(lane) };
        turn::<I, T>(x, [rows, columns], factor, &mut block[lane..], BLOCK);
    }
}

/// Numbers in the panels of so many rows and columns.
pub fn packed_len(rows: usize, columns: usize) -> usize {
    rows.next_multiple_of(LANES) * columns
}

/// `rows` × `columns` of `x` in panels of sixteen rows: a panel lists the elements of its rows in column 0, in column 1,
/// and so on, zeros for rows beyond the last.
#[inline(always)]
pub fn pack<I: Isa, T: Real>(x: Right<'_, T>, rows: usize, columns: usize, panels: &mut [T]) {
    for first in (0..rows).step_by(LANES) {
        let panel = &mut panels[first * columns..][..LANES * columns];
        turn::<I, T>(x.skip(first), [LANES.min(rows - first), columns], T::ONE, panel, LANES);
    }
}

/// out[j·stride + i] = factor · x[i, j] for `rows` ≤ 16 rows, zeros for the rest of sixteen.
#[inline(always)]
fn turn<I: Isa, T: Real>(x: Right<'_, T>, [rows, columns]: [usize; 2], factor: T, out: &mut [T], stride: usize) {
    let body = columns - columns % LANES;
    let lanes = T::Lanes::<I>::splat(factor);
    for j in (0..body).step_by(LANES) {
        let mut square = [T::Lanes::<I>::zero(); LANES];
        for i in 0..LANES {
            if i < rows {
                square[i] = T::Lanes::<I>::load(&x.data[i * x.width + x.column + j..]).mul(lanes);
            }
        }
        let square = T::Lanes::<I>::transpose(square);
        for i in 0..LANES {
            square[i].store(&mut out[(j + i) * stride..]);
        }
    }
    for j in body..columns {
        let out = &mut out[j * stride..][..LANES];
        out[rows..].fill(T::ZERO);
        for i in 0..rows {
            out[i] = x.data[i * x.width + x.column + j] * factor;
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

    struct Pack<'a, T> {
        x: Right<'a, T>,
        rows: usize,
        columns: usize,
        panels: &'a mut [T],
    }

    impl<T: Real> Kernel for Pack<'_, T> {
        type Output = ();
        #[inline(always)]
        fn run<I: Isa>(self) {
            pack::<I, T>(self.x, self.rows, self.columns, self.panels);
        }
    }

    /// Entry (row, column) of a left factor.
    type Entry<'a, T> = dyn Fn(usize, usize) -> T + 'a;

    fn matches_definition<T: Real>(size: Size) {
        let Size { m, n, k } = size;
        let (first, lane, stride) = (8, 3, n + 3);
        let (b, old) = (random::<T>(k * stride, 2), random::<T>(m * (n + 2), 3));
        let block = random::<T>(m.max(k) * BLOCK, 1);
        let mut panels = vec![T::NEG_INFINITY; packed_len(first + m, k)];
        let rows = random::<T>((first + m) * (k + 1), 4);
        let x = Right { data: &rows[..], width: k + 1, column: 1 };
        simd::dispatch(Pack { x, rows: first + m, columns: k, panels: &mut panels });
        let lefts: [(Left<'_, T>, &Entry<'_, T>, usize); 3] = [
            (Left::Packed { panels: &panels, first }, &|i, p| rows[(first + i) * (k + 1) + 1 + p], 0),
            (Left::Block { block: &block, lane }, &|i, p| block[i * BLOCK + lane + p], k),
            (Left::Transposed { block: &block, lane }, &|i, p| block[p * BLOCK + lane + i], m),
        ];
        for (left, a, lanes) in lefts {
            for start in [Start::Zero, Start::C] {
                if lane + lanes > BLOCK {
                    continue;
                }
                let mut expected = old.clone();
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let c = &mut expected[i * (n + 2) + j];
                    let first = if start == Start::C { *c } else { T::ZERO };
                    *c = (0..k).fold(first, |sum, p| Real::mul_add(a(i, p), b[p * stride + 2 + j], sum));
                }
                let mut got = old.clone();
                let b = Right { data: &b[..], width: stride, column: 2 };
                simd::dispatch(Product { c: &mut got, stride: n + 2, size, a: left, b, start });
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
            let width = columns + 3;
            let x = random::<f32>(rows * width, 5);
            let mut block = vec![7.0; columns * BLOCK];
            simd::dispatch(Transpose { x: Right { data: &x, width, column: 2 }, rows, block: &mut block });
            for (j, lanes) in block.chunks(BLOCK).enumerate() {
                assert!((0..rows).all(|i| lanes[i] == 0.5 * x[i * width + 2 + j]));
                assert!(lanes[rows..].iter().all(|&x| x == 0.0));
            }
        }
    }
}
