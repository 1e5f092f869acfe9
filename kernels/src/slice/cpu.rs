use super::Part;
use crate::copy::{Stretch, stretches};
use engine::Want;
use engine::simd::Real;

/// The part of every row of `from`.
pub fn take<T: Real>(part: Part, want: Want, from: &[T], to: &mut [T]) {
    let Part { whole, start, len } = part;
    stretches(want, len, to, || {
        move |row, column| Stretch::From(&from[row * whole + start + column..][..len - column])
    });
}

/// Rows of `from` as the part of rows of `to` that are zero elsewhere.
pub fn put<T: Real>(part: Part, want: Want, from: &[T], to: &mut [T]) {
    let Part { whole, start, len } = part;
    stretches(want, whole, to, || {
        move |row, column| match column.checked_sub(start) {
            None => Stretch::Zeros(start - column),
            Some(within) if within < len => Stretch::From(&from[row * len + within..][..len - within]),
            Some(_) => Stretch::Zeros(whole - column),
        }
    });
}

/// Rows of all inputs side by side; an input comes with the width of its rows.
pub fn join<T: Real>(ins: &[(&[T], usize)], y: &mut [T]) {
    let width = ins.iter().map(|(_, width)| width).sum();
    stretches(Want::Write, width, y, || {
        move |row, mut column| {
            for (x, width) in ins {
                if column < *width {
                    return Stretch::From(&x[row * width + column..][..width - column]);
                }
                column -= width;
            }
            unreachable!("a column of the row")
        }
    });
}
