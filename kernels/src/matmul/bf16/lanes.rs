//! The bf16 product by f32 fused multiply-adds, on AVX2 and AVX-512. Both factors are expanded to f32, exactly: A once, and
//! a strip of B whenever the rows of A in L2 have used the one before.

use super::super::tiles::Tile;
use super::{Left, Place, Start, at_once, in_copy, pack};
use engine::parallel;
use engine::simd::{self, Block, Isa, Kernel, LANES, Lanes, SIDE};
use half::bf16;

/// A block in f32: for a left factor [row, k], for a right one [k, column].
type Wide = [[f32; SIDE]; SIDE];

/// The product for one tile of C.
pub(super) fn tile(c: &mut Tile<'_, f32>, a: Left<'_, f32>, b: &[Block], start: Start<'_, f32>) {
    let depth = a.sizes()[1].div_ceil(SIDE);
    // A block of A takes at most 512 KiB.
    let most = at_once(c.rows.len(), depth, 1 << 17);
    parallel::scratch((most + SIDE) * SIDE * depth, |scratch| {
        simd::dispatch_flushing(TileProduct { c, a, b, start, most, scratch });
    });
}

struct TileProduct<'a, 'c> {
    c: &'a mut Tile<'c, f32>,
    a: Left<'a, f32>,
    b: &'a [Block],
    start: Start<'a, f32>,
    /// Rows of A at once.
    most: usize,
    scratch: &'a mut [f32],
}

impl Kernel for TileProduct<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { c, a, b, start, most, scratch } = self;
        let (rows, cols, k) = (c.rows.len(), c.cols.len(), a.sizes()[1]);
        let depth = k.div_ceil(SIDE);
        let blocks: &mut [Wide] = scratch.as_chunks_mut().0.as_chunks_mut().0;
        let (a_wide, b_wide) = blocks.split_at_mut(most / SIDE * depth);
        for first in (0..rows).step_by(most) {
            let below = rows.min(first + most);
            for (row, wide) in (first..below).step_by(SIDE).zip(a_wide.chunks_exact_mut(depth)) {
                for (at, wide) in wide.iter_mut().enumerate() {
                    let top = c.rows.start + row;
                    let mut packed = [[bf16::ZERO; SIDE * SIDE]];
                    let narrow = match a {
                        Left::Packed { blocks, .. } => &blocks[top / SIDE * depth + at],
                        Left::Plain(a) => {
                            let x = a.part(top, at * SIDE, SIDE.min(below - row), SIDE.min(k - at * SIDE));
                            pack::Strip { x, left: true, out: &mut packed }.run::<I>();
                            &packed[0]
                        }
                    };
                    widen_left(narrow, wide);
                }
            }
            for col in (0..cols).step_by(SIDE) {
                let strip = &b[(c.cols.start + col) / SIDE * depth..][..depth];
                strip.iter().zip(&mut *b_wide).for_each(|(narrow, wide)| widen_right(narrow, wide));
                for (row, a) in (first..below).step_by(SIDE).zip(a_wide.chunks_exact(depth)) {
                    let place = Place { row, col, rows: SIDE.min(below - row), cols: SIDE.min(cols - col) };
                    in_copy(c, place, start, |sums| add_wide::<I>(place.rows, a, b_wide, sums));
                }
            }
        }
    }
}

/// `c` += the sum over the blocks of a·b.
pub(super) fn add(a: &[Block], b: &[Block], c: &mut [[f32; SIDE]; SIDE]) {
    simd::dispatch_flushing(BlockProduct { a, b, c });
}

struct BlockProduct<'a> {
    a: &'a [Block],
    b: &'a [Block],
    c: &'a mut Wide,
}

impl Kernel for BlockProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let mut wide = [[[0.0; SIDE]; SIDE]; 2];
        for (a, b) in self.a.iter().zip(self.b) {
            let [a_wide, b_wide] = &mut wide;
            widen_left(a, a_wide);
            widen_right(b, b_wide);
            add_wide::<I>(SIDE, &wide[..1], &wide[1..], self.c);
        }
    }
}

#[inline(always)]
fn widen_left(narrow: &Block, wide: &mut Wide) {
    for (wide, narrow) in wide.as_flattened_mut().iter_mut().zip(narrow) {
        *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
    }
}

/// Separates the even and the odd k of a right factor's block.
#[inline(always)]
fn widen_right(narrow: &Block, wide: &mut Wide) {
    for (at, pairs) in narrow.as_chunks::<SIDE>().0.iter().enumerate() {
        let (tile, p) = (at / LANES, at % LANES);
        for odd in 0..2 {
            let out = &mut wide[2 * p + odd][tile * LANES..][..LANES];
            for j in 0..LANES {
                out[j] = f32::from_bits(u32::from(pairs[2 * j + odd].to_bits()) << 16);
            }
        }
    }
}

/// The first `rows` of `c` (or some more) += the sum over the blocks of a·b.
#[inline(always)]
fn add_wide<I: Isa>(rows: usize, a: &[Wide], b: &[Wide], c: &mut Wide) {
    match I::REGISTERS {
        32.. => add_in::<I, 8, 2>(rows, a, b, c),
        _ => add_in::<I, 4, 1>(rows, a, b, c),
    }
}

/// M rows by G groups of sixteen columns at a time.
#[inline(always)]
fn add_in<I: Isa, const M: usize, const G: usize>(rows: usize, a: &[Wide], b: &[Wide], c: &mut Wide) {
    for (a, b) in a.iter().zip(b) {
        for i in (0..rows).step_by(M) {
            let a: &[[f32; SIDE]; M] = a[i..].first_chunk().expect("M divides 32");
            for j in (0..SIDE).step_by(G * LANES) {
                // One after the other, so that twice as many rows fit into the registers.
                let (even, odd) = (chains::<I, M, G>(a, b, j, 0), chains::<I, M, G>(a, b, j, 1));
                for r in 0..M {
                    for g in 0..G {
                        let c = &mut c[i + r][j + g * LANES..];
                        I::F32::load(c).add(even[r][g].add(odd[r][g])).store(c);
                    }
                }
            }
        }
    }
}

/// The chains over the even k of a block, or the odd ones.
#[inline(always)]
fn chains<I: Isa, const M: usize, const G: usize>(
    a: &[[f32; SIDE]; M],
    b: &Wide,
    column: usize,
    odd: usize,
) -> [[I::F32; G]; M] {
    let mut sums = [[I::F32::zero(); G]; M];
    for p in 0..SIDE / 2 {
        let k = 2 * p + odd;
        let mut columns = [I::F32::zero(); G];
        for g in 0..G {
            columns[g] = I::F32::load(&b[k][column + g * LANES..]);
        }
        for i in 0..M {
            let element = I::F32::splat(a[i][k]);
            for g in 0..G {
                sums[i][g] = element.mul_add(columns[g], sums[i][g]);
            }
        }
    }
    sums
}
