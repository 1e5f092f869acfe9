use engine::simd::Real;
use engine::{Want, parallel};

/// In elements: the size of a sample of `x`, and where in it the slice lies.
#[derive(Clone, Copy)]
pub struct Part {
    pub sample: usize,
    pub start: usize,
    pub len: usize,
}

pub fn forward<T: Real>(part: Part, x: &[T], y: &mut [T]) {
    parallel::chunks(y, part.len, |b, y| y.copy_from_slice(&x[b * part.sample + part.start..][..part.len]));
}

pub fn vjp<T: Real>(part: Part, want: Want, d_y: &[T], d_x: &mut [T]) {
    parallel::chunks(d_x, part.sample, |b, d_x| {
        let d_y = &d_y[b * part.len..][..part.len];
        let (before, rest) = d_x.split_at_mut(part.start);
        let (inside, after) = rest.split_at_mut(part.len);
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
