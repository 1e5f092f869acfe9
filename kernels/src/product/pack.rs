//! Packs matrices in the order in which a product reads them.

use super::{BLOCK, Right};
use engine::simd::{Isa, LANES, Lanes, Real};

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

/// `out` [rows, columns] = the columns of `x`, row after row without gaps.
///
/// This pays for data that is read often: rows a power of two apart compete for a few places in L1.
#[inline(always)]
pub fn gather<T: Copy>(x: Right<'_, T>, columns: usize, out: &mut [T]) {
    for (out, row) in out.chunks_exact_mut(columns).zip(x.data.chunks_exact(x.width)) {
        out.copy_from_slice(&row[x.column..][..columns]);
    }
}

/// Length of the panels of this many rows and columns.
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
