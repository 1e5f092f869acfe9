use crate::lanes::{load, rows_per_chunk, sigmoid, store, store_wanted};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};

pub fn forward<T: Real>(f: usize, u: &[T], y: &mut [T]) {
    let rows = rows_per_chunk(f);
    parallel::chunks(y, rows * f, |c, y| {
        simd::dispatch(Forward { f, u: &u[2 * c * rows * f..], y });
    });
}

struct Forward<'a, T> {
    f: usize,
    u: &'a [T],
    y: &'a mut [T],
}

impl<T: Real> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { f, u, y } = self;
        for (y, u) in y.chunks_exact_mut(f).zip(u.chunks_exact(2 * f)) {
            let (u1, u3) = u.split_at(f);
            for i in (0..f).step_by(LANES) {
                let (u1, u3) = (load::<I, T>(u1, i), load::<I, T>(u3, i));
                store::<I, T>(u1.div(T::Lanes::<I>::splat(T::ONE).add(u1.neg().exp())).mul(u3), y, i);
            }
        }
    }
}

pub fn vjp<T: Real>(f: usize, want: Want, u: &[T], d_y: &[T], d_u: &mut [T]) {
    let rows = rows_per_chunk(2 * f);
    parallel::chunks(d_u, rows * 2 * f, |c, d_u| {
        simd::dispatch(Backward { f, want, u: &u[2 * c * rows * f..], d_y: &d_y[c * rows * f..], d_u });
    });
}

struct Backward<'a, T> {
    f: usize,
    want: Want,
    u: &'a [T],
    d_y: &'a [T],
    d_u: &'a mut [T],
}

impl<T: Real> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { f, want, u, d_y, d_u } = self;
        let one = T::Lanes::<I>::splat(T::ONE);
        for ((d_u, u), d_y) in d_u.chunks_exact_mut(2 * f).zip(u.chunks_exact(2 * f)).zip(d_y.chunks_exact(f)) {
            let (u1, u3) = u.split_at(f);
            let (d_u1, d_u3) = d_u.split_at_mut(f);
            for i in (0..f).step_by(LANES) {
                let (u1, u3, d_y) = (load::<I, T>(u1, i), load::<I, T>(u3, i), load::<I, T>(d_y, i));
                let s = sigmoid::<I, T>(u1);
                let slope = u1.mul_add(one.sub(s), one).mul(s);
                store_wanted::<I, T>(want, d_y.mul(u3).mul(slope), d_u1, i);
                store_wanted::<I, T>(want, d_y.mul(u1.mul(s)), d_u3, i);
            }
        }
    }
}
