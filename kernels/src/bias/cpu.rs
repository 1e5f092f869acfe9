use crate::lanes::rows_per_chunk;
use engine::parallel;
use engine::simd::Real;

/// Plain loops: memory is the limit, and the compiler's vectors keep up with it.
pub fn forward<T: Real>(x: &[T], b: &[T], y: &mut [T]) {
    let chunk = rows_per_chunk(b.len()) * b.len();
    parallel::chunks(y, chunk, |c, y| {
        for (y, x) in y.chunks_exact_mut(b.len()).zip(x[c * chunk..].chunks_exact(b.len())) {
            y.iter_mut().zip(x).zip(b).for_each(|((y, &x), &b)| *y = x + b);
        }
    });
}
