use super::{CUBIC, LINEAR};
use crate::lanes::{CHUNK, load, sigmoid, store, store_wanted};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};

pub fn forward<T: Real>(u: &[T], y: &mut [T]) {
    parallel::chunks(y, CHUNK, |c, y| simd::dispatch(Forward { u: &u[c * CHUNK..], y }));
}

pub fn vjp<T: Real>(want: Want, u: &[T], d_y: &[T], d_u: &mut [T]) {
    parallel::chunks(d_u, CHUNK, |c, d_u| {
        simd::dispatch(Backward { want, u: &u[c * CHUNK..], d_y: &d_y[c * CHUNK..], d_u });
    });
}

/// u², and the sigmoid of a(u).
#[inline(always)]
fn gate<I: Isa, T: Real>(u: T::Lanes<I>) -> (T::Lanes<I>, T::Lanes<I>) {
    let square = u.mul(u);
    let (linear, cubic) = (T::Lanes::<I>::splat(T::from_f64(LINEAR)), T::Lanes::<I>::splat(T::from_f64(CUBIC)));
    let a = square.mul_add(cubic, linear).mul(u);
    (square, sigmoid::<I, T>(a))
}

struct Forward<'a, T> {
    u: &'a [T],
    y: &'a mut [T],
}

impl<T: Real> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { u, y } = self;
        for i in (0..y.len()).step_by(LANES) {
            let u = load::<I, T>(u, i);
            store::<I, T>(u.mul(gate::<I, T>(u).1), y, i);
        }
    }
}

struct Backward<'a, T> {
    want: Want,
    u: &'a [T],
    d_y: &'a [T],
    d_u: &'a mut [T],
}

impl<T: Real> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { want, u, d_y, d_u } = self;
        let one = T::Lanes::<I>::splat(T::ONE);
        let (linear, cubic) =
            (T::Lanes::<I>::splat(T::from_f64(LINEAR)), T::Lanes::<I>::splat(T::from_f64(3.0 * CUBIC)));
        for i in (0..d_u.len()).step_by(LANES) {
            let (u, d_y) = (load::<I, T>(u, i), load::<I, T>(d_y, i));
            let (square, s) = gate::<I, T>(u);
            let bend = u.mul(s).mul(one.sub(s));
            let slope = bend.mul_add(square.mul_add(cubic, linear), s);
            store_wanted::<I, T>(want, d_y.mul(slope), d_u, i);
        }
    }
}
