use engine::Want;
use std::ops::AddAssign;

pub fn forward<T: Copy + Default + AddAssign>(x: &[T], y: &mut [T]) {
    let mut total = T::default();
    x.iter().for_each(|&x| total += x);
    y[0] = total;
}

pub fn vjp<T: Copy + AddAssign>(d_y: T, want: Want, d_x: &mut [T]) {
    match want {
        Want::Skip => {}
        Want::Write => d_x.fill(d_y),
        Want::Add => d_x.iter_mut().for_each(|d| *d += d_y),
    }
}
