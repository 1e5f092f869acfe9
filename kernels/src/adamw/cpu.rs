use super::Rule;
use crate::lanes::{CHUNK, load, store};
use engine::parallel;
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use rayon::prelude::*;

/// The factors of one step of AdamW, computed in f64.
#[derive(Clone, Copy)]
pub struct Step<T> {
    decay: T,
    beta1: T,
    beta2: T,
    rest1: T,
    rest2: T,
    /// rate / (1 − beta1ᵗ).
    rate: T,
    /// 1 / √(1 − beta2ᵗ).
    root: T,
    eps: T,
}

/// Floating-point operations of [`Step::lanes`] per number.
pub const FLOPS: u64 = 15;

impl Rule {
    /// Step number `t`, counted from 1.
    pub(crate) fn step<T: Real>(&self, rate: f64, t: u32) -> Step<T> {
        let correction = |beta: f64| 1.0 - beta.powi(t as i32);
        Step {
            decay: T::from_f64(1.0 - rate * self.weight_decay),
            beta1: T::from_f64(self.beta1),
            beta2: T::from_f64(self.beta2),
            rest1: T::from_f64(1.0 - self.beta1),
            rest2: T::from_f64(1.0 - self.beta2),
            rate: T::from_f64(rate / correction(self.beta1)),
            root: T::from_f64(1.0 / correction(self.beta2).sqrt()),
            eps: T::from_f64(self.eps),
        }
    }
}

impl<T: Real> Step<T> {
    /// Updates the sixteen parameters and moments from `i` on for their gradient `g`.
    #[inline(always)]
    pub fn lanes<I: Isa>(&self, g: T::Lanes<I>, p: &mut [T], m: &mut [T], v: &mut [T], i: usize) {
        let splat = T::Lanes::<I>::splat;
        let m_next = load::<I, T>(m, i).mul_add(splat(self.beta1), g.mul(splat(self.rest1)));
        let v_next = load::<I, T>(v, i).mul_add(splat(self.beta2), g.mul(g).mul(splat(self.rest2)));
        let scale = v_next.sqrt().mul_add(splat(self.root), splat(self.eps));
        let decayed = load::<I, T>(p, i).mul(splat(self.decay));
        store::<I, T>(m_next.div(scale).mul_add(splat(-self.rate), decayed), p, i);
        store::<I, T>(m_next, m, i);
        store::<I, T>(v_next, v, i);
    }
}

pub fn adamw<T: Real>(step: &Step<T>, clip: f64, grad: &[T], w: &mut [T], m: &mut [T], v: &mut [T]) {
    assert!([w.len(), m.len(), v.len()] == [grad.len(); 3], "weight, moments and gradient have the same size");
    let clip = T::from_f64(clip);
    (grad.par_chunks(CHUNK), w.par_chunks_mut(CHUNK), m.par_chunks_mut(CHUNK), v.par_chunks_mut(CHUNK))
        .into_par_iter()
        .for_each(|(grad, w, m, v)| simd::dispatch(AdamW { step, clip, grad, w, m, v }));
}

struct AdamW<'a, T> {
    step: &'a Step<T>,
    clip: T,
    grad: &'a [T],
    w: &'a mut [T],
    m: &'a mut [T],
    v: &'a mut [T],
}

impl<T: Real> Kernel for AdamW<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { step, clip, grad, w, m, v } = self;
        let clip = T::Lanes::<I>::splat(clip);
        for i in (0..grad.len()).step_by(LANES) {
            step.lanes::<I>(load::<I, T>(grad, i).mul(clip), w, m, v, i);
        }
    }
}

/// `partials` is scratch memory, a number per chunk.
pub fn squared_norm<T: Real>(grad: &[T], partials: &mut [T]) -> T {
    parallel::chunks(partials, 1, |c, partial| {
        let chunk = &grad[c * CHUNK..][..CHUNK.min(grad.len() - c * CHUNK)];
        partial[0] = simd::dispatch(SumSquares(chunk));
    });
    T::from_f64(partials.iter().map(|partial| partial.to_f64()).sum())
}

struct SumSquares<'a, T>(&'a [T]);

impl<T: Real> Kernel for SumSquares<'_, T> {
    type Output = T;

    #[inline(always)]
    fn run<I: Isa>(self) -> T {
        simd::sum_squares::<I, T>(self.0)
    }
}
