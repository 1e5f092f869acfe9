use super::RANGE;
use crate::lanes::rows_per_chunk;
use engine::simd::Real;
use engine::{Want, parallel};

pub fn forward<T: Real>(d: usize, table: &[T], tokens: &[i32], h: &mut [T]) {
    let rows = rows_per_chunk(d);
    parallel::chunks(h, rows * d, |c, h| {
        for (h, &token) in h.chunks_exact_mut(d).zip(&tokens[c * rows..]) {
            h.copy_from_slice(&table[token as usize * d..][..d]);
        }
    });
}

pub fn vjp<T: Real>(d: usize, want: Want, tokens: &[i32], d_h: &[T], d_table: &mut [T]) {
    parallel::chunks(d_table, RANGE * d, |c, range| {
        if want == Want::Write {
            range.fill(T::ZERO);
        }
        let (first, rows) = (c * RANGE, range.len() / d);
        for (&token, d_h) in tokens.iter().zip(d_h.chunks_exact(d)) {
            let row = (token as usize).wrapping_sub(first);
            if row < rows {
                range[row * d..][..d].iter_mut().zip(d_h).for_each(|(sum, &d_h)| *sum += d_h);
            }
        }
    });
}
