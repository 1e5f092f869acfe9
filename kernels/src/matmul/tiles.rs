//! A matrix cut into rectangles that threads write at the same time. Rows of different tiles interleave in memory,
//! which slices cannot express. So the product needs unsafe code, and all of it is here.

use super::geometry::{Blocking, PANEL};
#[cfg(target_arch = "x86_64")]
use super::mat::Mat;
use engine::parallel;
use engine::simd::LANES;
#[cfg(target_arch = "x86_64")]
use engine::{
    Want,
    simd::{Amx, Block, SIDE},
};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;

/// Most rows of C in a tile, and the fewest rows and columns for which packing pays.
const TILE_ROWS: usize = 2016;
const SMALL_TILE: [usize; 2] = [42, 128];

/// As many multiplications as a thread does while another wakes up: some microseconds in f32.
const SMALL_WORK: usize = 1 << 18;

/// A rectangle of a matrix with contiguous rows, written by one thread.
pub struct Tile<'a, T> {
    data: *mut T,
    row_stride: usize,
    /// Rows of the matrix that it covers.
    pub rows: Range<usize>,
    /// Columns of the matrix that it covers.
    pub cols: Range<usize>,
    matrix: PhantomData<&'a mut [T]>,
}

impl<T> Tile<'_, T> {
    /// Row `i` of the tile, from column `j` of the tile, `len` elements.
    #[inline(always)]
    pub fn row(&mut self, i: usize, j: usize, len: usize) -> &mut [T] {
        assert!(i < self.rows.len() && j + len <= self.cols.len(), "outside the tile");
        let start = (self.rows.start + i) * self.row_stride + self.cols.start + j;
        // SAFETY: `for_each_tile` checked that every row and column in `rows` and `cols` lies inside the matrix, which
        // it borrows mutably for longer than this tile lives, and that tiles are disjoint. So the elements exist, no
        // other tile accesses them, and this tile lends them only while it is itself borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }

    /// `M` rows from row `i` and `G` groups of sixteen columns from column `j` of the tile, checked once.
    #[inline(always)]
    pub fn block<const M: usize, const G: usize>(&mut self, i: usize, j: usize) -> [[&mut [T; LANES]; G]; M] {
        assert!(i + M <= self.rows.len() && j + G * LANES <= self.cols.len(), "outside the tile");
        let start = (self.rows.start + i) * self.row_stride + self.cols.start + j;
        std::array::from_fn(|i| {
            std::array::from_fn(|g| {
                // SAFETY: as in `row`; and the groups are disjoint, because those of one row follow each other and rows
                // are at least as far apart as they are long.
                unsafe { &mut *self.data.add(start + i * self.row_stride + g * LANES).cast() }
            })
        })
    }
}

#[cfg(target_arch = "x86_64")]
impl Tile<'_, f32> {
    /// The 32×32 elements from row `i` and column `j` of the tile = a·b, by AMX. To `Add`, a·b is added to them, or to the
    /// same elements of the matrix `onto`.
    pub fn amx(
        &mut self,
        amx: &Amx,
        [i, j]: [usize; 2],
        [a, b]: [&[Block]; 2],
        want: Want,
        onto: Option<Mat<'_, f32>>,
    ) {
        assert!(i + SIDE <= self.rows.len() && j + SIDE <= self.cols.len(), "outside the tile");
        let (row, col) = (self.rows.start + i, self.cols.start + j);
        // SAFETY: as in `row`.
        let c = unsafe { self.data.add(row * self.row_stride + col) };
        let start = match onto.map(|onto| onto.part(row, col, SIDE, SIDE)) {
            _ if want != Want::Add => None,
            Some(onto) => Some((onto.data.as_ptr(), onto.row_stride)),
            None => Some((c.cast_const(), self.row_stride)),
        };
        // SAFETY: as in `row` for C. `part` checked that the last of the elements of `onto`, whose rows are contiguous, is
        // inside its slice.
        unsafe { amx.product(a, b, start, c, self.row_stride) };
    }
}

/// The first element of the matrix, for all threads.
struct Shared<T>(*mut T);

// SAFETY: the threads make disjoint `&mut [T]` from the pointer, which `T: Send` allows them to hold.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Cuts the `rows` × `cols` matrix in `data` into tiles of `size` = [rows, columns], smaller at the edges, and calls `f`
/// for each, in parallel.
///
/// # Panics
/// If the matrix does not fit into `data` or a size is zero.
pub fn for_each_tile<T: Send>(
    data: &mut [T],
    [rows, cols]: [usize; 2],
    row_stride: usize,
    size: [usize; 2],
    f: impl Fn(Tile<'_, T>) + Sync,
) {
    assert!(size[0] > 0 && size[1] > 0, "a tile has at least one element");
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(cols <= row_stride && (rows - 1) * row_stride + cols <= data.len(), "the matrix is larger than its data");
    let [down, across] = [rows.div_ceil(size[0]), cols.div_ceil(size[1])];
    let shared = Shared(data.as_mut_ptr());
    let tile = |index: usize| {
        let shared = &shared;
        let [i, j] = [index / across * size[0], index % across * size[1]];
        f(Tile {
            data: shared.0,
            row_stride,
            rows: i..rows.min(i + size[0]),
            cols: j..cols.min(j + size[1]),
            matrix: PhantomData,
        });
    };
    let tiles = 0..down * across;
    if tiles.len() == 1 || parallel::threads() == 1 {
        tiles.for_each(tile);
    } else {
        tiles.into_par_iter().with_max_len(1).for_each(tile);
    }
}

/// Tiles are as large as the caches allow. With several threads they are cut smaller, until each thread has about two.
/// Two threads get one each, which packs less: a training step takes 2 % less time than with two each. A product of
/// little work is cut into fewer tiles, of about [`SMALL_WORK`] or more multiplications each; `depth` is their number for each
/// element. Widths are pairs of panels, which AVX-512 takes together.
pub fn tile_size(blocking: Blocking, rows: usize, cols: usize, depth: usize) -> [usize; 2] {
    let most = match parallel::threads() {
        n @ 1..=2 => n,
        n => 2 * n,
    };
    let most = most.min(rows * cols * depth / SMALL_WORK);
    let even = |length: usize, parts: usize, unit: usize| length.div_ceil(parts).next_multiple_of(unit);
    let (mut down, mut across) = (rows.div_ceil(TILE_ROWS).max(1), cols.div_ceil(blocking.cols).max(1));
    // The same number for each thread.
    if across > 1 {
        across = across.next_multiple_of(parallel::threads());
    } else if down > 1 {
        down = down.next_multiple_of(parallel::threads());
    }
    loop {
        let size = [even(rows, down, blocking.panel).max(1), even(cols, across, 2 * PANEL).max(1)];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_matrix_once_and_leave_the_rest() {
        let (rows, cols, stride) = (13, 21, 25);
        let mut data = vec![0; (rows - 1) * stride + cols];
        for_each_tile(&mut data, [rows, cols], stride, [4, 6], |mut tile| {
            for i in 0..tile.rows.len() {
                let (row, first, len) = (tile.rows.start + i, tile.cols.start, tile.cols.len());
                for (j, x) in tile.row(i, 0, len).iter_mut().enumerate() {
                    *x += row * 100 + first + j + 1;
                }
            }
        });
        for (at, &x) in data.iter().enumerate() {
            let (row, col) = (at / stride, at % stride);
            assert_eq!(x, if col < cols { row * 100 + col + 1 } else { 0 });
        }
        for_each_tile(&mut [0; 0], [0, 5], 5, [4, 6], |_| unreachable!("an empty matrix has no tiles"));
    }

    #[test]
    #[should_panic(expected = "outside the tile")]
    fn a_tile_ends_at_its_border() {
        for_each_tile(&mut [0; 4], [2, 2], 2, [2, 1], |mut tile| {
            tile.row(0, 0, 2);
        });
    }

    #[test]
    fn tiles_are_many_enough_and_aligned() {
        for blocking in [512, 2048].map(|cols| Blocking { panel: 6, rows: 144, depth: 384, depth_across: 384, cols }) {
            for [m, n] in [[1, 50_258], [50_258, 512], [1024, 512], [1024, 50_258], [1, 1], [0, 0]] {
                for threads in [1, 2, 16, 64] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let [rows, cols] = pool.install(|| tile_size(blocking, m, n, 512));
                    assert_eq!(cols % PANEL, if n == 0 { 1 } else { 0 }, "packed panels are not split");
                    assert!(rows <= TILE_ROWS && cols <= blocking.cols);
                    let tiles = m.div_ceil(rows) * n.div_ceil(cols);
                    let smallest = rows <= SMALL_TILE[0] && cols <= SMALL_TILE[1];
                    let enough = if threads <= 2 { threads.min(m * n) } else { 3 * threads / 2 };
                    assert!(tiles >= enough || smallest, "[{m}, {n}], {threads} threads: {tiles} tiles");
                }
            }
        }
    }

    #[test]
    fn threads_share_a_product_only_if_it_is_worth_it() {
        let blocking = Blocking { panel: 6, rows: 144, depth: 384, depth_across: 384, cols: 512 };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(16).build().unwrap();
        let tiles = |[m, n, k]: [usize; 3]| {
            let [rows, cols] = pool.install(|| tile_size(blocking, m, n, k));
            m.div_ceil(rows) * n.div_ceil(cols)
        };
        assert_eq!([[64, 64, 32], [64, 64, 127], [256, 64, 32], [256, 64, 64]].map(tiles), [1, 1, 2, 4]);
        assert!(tiles([1024, 512, 512]) >= 24);
    }
}
