use super::{CUBIC, LINEAR};
use crate::lanes::{Map, sigmoid};
use engine::simd::{Isa, Lanes, Real};

#[inline(always)]
fn constant<I: Isa, T: Real>(x: f64) -> T::Lanes<I> {
    T::Lanes::<I>::splat(T::from_f64(x))
}

/// u², and the sigmoid of a(u).
#[inline(always)]
fn gate<I: Isa, T: Real>(u: T::Lanes<I>) -> (T::Lanes<I>, T::Lanes<I>) {
    let square = u.mul(u);
    let (linear, cubic) = (constant::<I, T>(LINEAR), constant::<I, T>(CUBIC));
    let a = square.mul_add(cubic, linear).mul(u);
    (square, sigmoid::<I, T>(a))
}

/// `y = u·s`
#[derive(Clone, Copy)]
pub struct Forward;

impl<T: Real> Map<T, 1> for Forward {
    #[inline(always)]
    fn at<I: Isa>(self, [u]: [T::Lanes<I>; 1]) -> T::Lanes<I> {
        u.mul(gate::<I, T>(u).1)
    }
}

/// `d_u = d_y ⊙ (s + u·s(1 − s)·a′)`
#[derive(Clone, Copy)]
pub struct Backward;

impl<T: Real> Map<T, 2> for Backward {
    #[inline(always)]
    fn at<I: Isa>(self, [u, d_y]: [T::Lanes<I>; 2]) -> T::Lanes<I> {
        let (one, linear, cubic) = (constant::<I, T>(1.0), constant::<I, T>(LINEAR), constant::<I, T>(3.0 * CUBIC));
        let (square, s) = gate::<I, T>(u);
        let bend = u.mul(s).mul(one.sub(s));
        d_y.mul(bend.mul_add(square.mul_add(cubic, linear), s))
    }
}
