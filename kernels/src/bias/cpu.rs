use crate::lanes::rows_per_chunk;
use engine::simd::Real;
use engine::{Want, parallel};

/// Columns of `d_b` that one task sums over all rows.
pub const COLUMNS: usize = 128;

/// One addition per element needs no instruction set: the compiler's own vectors keep up with memory.
pub fn forward<T: Real>(x: &[T], b: &[T], y: &mut [T]) {
    let chunk = rows_per_chunk(b.len()) * b.len();
    parallel::chunks(y, chunk, |c, y| {
        for (y, x) in y.chunks_exact_mut(b.len()).zip(x[c * chunk..].chunks_exact(b.len())) {
            y.iter_mut().zip(x).zip(b).for_each(|((y, &x), &b)| *y = x + b);
        }
    });
}

pub fn vjp_b<T: Real>(want: Want, d_y: &[T], d_b: &mut [T]) {
    let width = d_b.len();
    parallel::chunks(d_b, COLUMNS, |c, d_b| {
        if want == Want::Write {
            d_b.fill(T::ZERO);
        }
        for d_y in d_y.chunks_exact(width) {
            d_b.iter_mut().zip(&d_y[c * COLUMNS..]).for_each(|(sum, &d_y)| *sum += d_y);
        }
    });
}
