use crate::lanes::CHUNK;
use engine::parallel;
use engine::simd::Real;

/// One addition per element needs no instruction set: the compiler's own vectors keep up with memory.
pub fn forward<T: Real>(a: &[T], b: &[T], y: &mut [T]) {
    parallel::chunks(y, CHUNK, |c, y| {
        let (a, b) = (&a[c * CHUNK..], &b[c * CHUNK..]);
        y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = a + b);
    });
}
