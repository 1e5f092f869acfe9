use crate::lanes::CHUNK;
use engine::simd::Real;
use engine::{Want, parallel};

/// Plain loops: memory is the limit, and auto-vectorised code is fast enough.
pub fn forward<T: Real>(a: &[T], b: &[T], y: &mut [T]) {
    parallel::chunks(y, CHUNK, |c, y| {
        let (a, b) = (&a[c * CHUNK..], &b[c * CHUNK..]);
        y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = a + b);
    });
}

/// Copies or adds a gradient unchanged.
pub fn pass_on<T: Real>(want: Want, d_out: &[T], d_in: &mut [T]) {
    match want {
        Want::Skip => {}
        Want::Write => parallel::chunks(d_in, CHUNK, |c, d_in| d_in.copy_from_slice(&d_out[c * CHUNK..][..d_in.len()])),
        Want::Add => parallel::chunks(d_in, CHUNK, |c, d_in| {
            d_in.iter_mut().zip(&d_out[c * CHUNK..]).for_each(|(d_in, &d_out)| *d_in += d_out);
        }),
    }
}
