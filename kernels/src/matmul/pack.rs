//! Packing stores the elements of a factor in the order in which the micro-kernel reads them.
//!
//! A is packed in panels of a few rows, B in panels of [`PANEL`] columns. A panel lists, for each k in turn, the
//! elements of its rows (columns) at that k; missing elements of the last panel are zero. B is packed as the transpose
//! of A would be, so one routine packs both.

use super::geometry::{self, PANEL};
use super::mat::Mat;
use engine::simd::{self, Isa, LANES, Lanes, Real};

/// Packs a block of A in panels; the last may be lower. `out` must be as long as for [`panel`].
#[inline(always)]
pub fn panels<I: Isa, T: Real>(x: Mat<'_, T>, out: &mut [T]) {
    let (most, depth) = (geometry::rows::<I, T>(), x.cols);
    let mut done = 0;
    if x.row_stride == 1 && x.rows > most {
        done = x.rows - x.rows % most;
        match most {
            1 => copy_panels::<T, 1>(x, done, out),
            2 => copy_panels::<T, 2>(x, done, out),
            6 => copy_panels::<T, 6>(x, done, out),
            _ => copy_panels::<T, 14>(x, done, out),
        }
    }
    for row in (done..x.rows).step_by(most) {
        let part = x.part(row, 0, most.min(x.rows - row), depth);
        panel::<I, T>(part, geometry::height::<I, T>(part.rows), &mut out[row * depth..]);
    }
}

/// Packs the first `rows`, which are adjacent in memory, in panels of `W`, one k at a time for all panels. Panel by
/// panel, the same cache lines would be needed again after they were evicted: they are as far apart as A is wide, often
/// a power of two.
#[inline(always)]
fn copy_panels<T: Real, const W: usize>(x: Mat<'_, T>, rows: usize, out: &mut [T]) {
    for p in 0..x.cols {
        let from = x.data[p * x.col_stride..][..rows].as_chunks::<W>().0;
        for (i, from) in from.iter().enumerate() {
            out[(i * x.cols + p) * W..][..W].copy_from_slice(from);
        }
    }
}

/// Packs one panel: `out[p·width + i] = x[i, p]`, zero for rows beyond the last. Unless `width` is [`PANEL`], `out`
/// must have sixteen more elements, which this may overwrite.
#[inline(always)]
pub fn panel<I: Isa, T: Real>(x: Mat<'_, T>, width: usize, out: &mut [T]) {
    if x.row_stride == 1 {
        copy_panel(x, width, out);
    } else if x.col_stride == 1 {
        match width {
            1 => transpose_panel::<I, T, 1>(x, out),
            2 => transpose_panel::<I, T, 2>(x, out),
            6 => transpose_panel::<I, T, 6>(x, out),
            14 => transpose_panel::<I, T, 14>(x, out),
            _ => transpose_panel::<I, T, PANEL>(x, out),
        }
    } else {
        for p in 0..x.cols {
            fill(x, p, 0..width, &mut out[p * width..]);
        }
    }
}

/// Elements `which` of the panel at `p`, one by one.
#[inline(always)]
fn fill<T: Real>(x: Mat<'_, T>, p: usize, which: std::ops::Range<usize>, out: &mut [T]) {
    for i in which {
        out[i] = if i < x.rows { x.at(i, p) } else { T::ZERO };
    }
}

/// The rows are adjacent in memory.
#[inline(always)]
fn copy_panel<T: Real>(x: Mat<'_, T>, width: usize, out: &mut [T]) {
    let rows = x.rows;
    for p in 0..x.cols {
        let from = &x.data[p * x.col_stride..];
        let out = &mut out[p * width..];
        // The next panel of B reads on in this row.
        if let Some(next) = from.get(LANES..2 * LANES) {
            simd::prefetch(next);
        }
        // A constant length, where possible, saves the call of a copying routine. As below, the next store overwrites
        // the excess.
        match from.first_chunk::<LANES>() {
            Some(from) if rows == width => out[..LANES].copy_from_slice(from),
            _ => {
                out[..rows].copy_from_slice(&from[..rows]);
                out[rows..width].fill(T::ZERO);
            }
        }
    }
}

/// Each of at most `W` rows is contiguous: transposes rows by sixteen columns at a time in registers. `W`, and where
/// possible the number of rows, are constants, so that small panels use fewer registers.
#[inline(always)]
fn transpose_panel<I: Isa, T: Real, const W: usize>(x: Mat<'_, T>, out: &mut [T]) {
    if x.rows == W { transpose_rows::<I, T, W>(x, W, out) } else { transpose_rows::<I, T, W>(x, x.rows, out) }
}

#[inline(always)]
fn transpose_rows<I: Isa, T: Real, const W: usize>(x: Mat<'_, T>, rows: usize, out: &mut [T]) {
    let cols = x.cols;
    let body = cols - cols % LANES;
    for p in (0..body).step_by(LANES) {
        let mut block = [T::Lanes::<I>::zero(); LANES];
        for i in 0..W {
            if i < rows {
                block[i] = T::Lanes::<I>::load(&x.data[i * x.row_stride + p..]);
            }
        }
        let block = T::Lanes::<I>::transpose(block);
        // If fewer than sixteen are wanted, the next store overwrites the excess.
        for i in 0..LANES {
            let out = &mut out[(p + i) * W..];
            if W <= LANES / 2 {
                block[i].store_half(out);
            } else {
                block[i].store(out);
            }
        }
    }
    for p in body..cols {
        fill(x, p, 0..W, &mut out[p * W..]);
    }
}
