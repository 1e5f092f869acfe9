//! Reductions and updates of whole slices, for use inside a kernel: `dot::<I, _>(x, y)`.
//!
//! Every reduction keeps sixteen running values, lane i over the elements i, i+16, i+32, …. It fills a last partial
//! group with the neutral element and combines the lanes in the tree of [`Lanes::sum`].

use super::{Isa, LANES, Lanes, Real};

/// Σ x.
#[inline(always)]
pub fn sum<I: Isa, T: Real>(x: &[T]) -> T {
    let (body, tail) = x.as_chunks::<LANES>();
    let mut total = T::Lanes::<I>::zero();
    for x in body {
        total = total.add(T::Lanes::<I>::load(x));
    }
    if !tail.is_empty() {
        total = total.add(T::Lanes::<I>::load_partial(tail, T::ZERO));
    }
    total.sum()
}

/// The largest of `x`, or −∞ if `x` is empty. If `x` contains a NaN, the result may or may not be NaN.
#[inline(always)]
pub fn max<I: Isa, T: Real>(x: &[T]) -> T {
    let (body, tail) = x.as_chunks::<LANES>();
    let mut largest = T::Lanes::<I>::splat(T::NEG_INFINITY);
    for x in body {
        largest = largest.max(T::Lanes::<I>::load(x));
    }
    if !tail.is_empty() {
        largest = largest.max(T::Lanes::<I>::load_partial(tail, T::NEG_INFINITY));
    }
    largest.max_lane()
}

/// Σ x².
#[inline(always)]
pub fn sum_squares<I: Isa, T: Real>(x: &[T]) -> T {
    dot::<I, T>(x, x)
}

/// Σ x·y.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn dot<I: Isa, T: Real>(x: &[T], y: &[T]) -> T {
    assert_eq!(x.len(), y.len(), "a dot product takes two slices of one length");
    let ((x, x_tail), (y, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut total = T::Lanes::<I>::zero();
    for (x, y) in x.iter().zip(y) {
        total = T::Lanes::<I>::load(x).mul_add(T::Lanes::<I>::load(y), total);
    }
    if !x_tail.is_empty() {
        let y = T::Lanes::<I>::load_partial(y_tail, T::ZERO);
        total = T::Lanes::<I>::load_partial(x_tail, T::ZERO).mul_add(y, total);
    }
    total.sum()
}

/// y += a·x.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn axpy<I: Isa, T: Real>(a: T, x: &[T], y: &mut [T]) {
    assert_eq!(x.len(), y.len(), "y += a·x takes two slices of one length");
    let ((x, x_tail), (y, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
    let lanes = T::Lanes::<I>::splat(a);
    for (x, y) in x.iter().zip(y) {
        lanes.mul_add(T::Lanes::<I>::load(x), T::Lanes::<I>::load(y)).store(y);
    }
    for (&x, y) in x_tail.iter().zip(y_tail) {
        *y = Real::mul_add(a, x, *y);
    }
}
