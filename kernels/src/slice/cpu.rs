use engine::simd::Real;
use engine::{Want, parallel};

/// The first argument, in elements: the size of a sample of `x`, and the offset and length of the slice in it.
pub fn forward<T: Real>([sample, start, len]: [usize; 3], x: &[T], y: &mut [T]) {
    parallel::chunks(y, len, |b, y| y.copy_from_slice(&x[b * sample + start..][..len]));
}

pub fn vjp<T: Real>([sample, start, len]: [usize; 3], want: Want, d_y: &[T], d_x: &mut [T]) {
    parallel::chunks(d_x, sample, |b, d_x| {
        let d_y = &d_y[b * len..][..len];
        let (before, rest) = d_x.split_at_mut(start);
        let (inside, after) = rest.split_at_mut(len);
        match want {
            Want::Skip => {}
            Want::Write => {
                before.fill(T::ZERO);
                inside.copy_from_slice(d_y);
                after.fill(T::ZERO);
            }
            Want::Add => inside.iter_mut().zip(d_y).for_each(|(d_x, &d_y)| *d_x += d_y),
        }
    });
}
