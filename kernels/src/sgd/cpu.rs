use crate::lanes::{CHUNK, load, store};
use engine::parallel;
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};

/// `factors` are those of clipping and weight decay, the momentum's decay, and the rate. `m` may be empty.
pub fn sgd<T: Real>(factors: [T; 4], nesterov: bool, grad: &[T], w: &mut [T], m: &mut [T]) {
    assert!(w.len() == grad.len() && (m.is_empty() || m.len() == grad.len()), "parameter and gradient of one size");
    parallel::chunks2(w, CHUNK, m, CHUNK, |c, w, m| {
        let grad = &grad[c * CHUNK..][..w.len()];
        simd::dispatch(Sgd { factors, nesterov, grad, w, m });
    });
}

struct Sgd<'a, T> {
    factors: [T; 4],
    nesterov: bool,
    grad: &'a [T],
    w: &'a mut [T],
    m: &'a mut [T],
}

impl<T: Real> Kernel for Sgd<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { factors: [clip, decay, momentum, rate], nesterov, grad, w, m } = self;
        let splat = T::Lanes::<I>::splat;
        let (clip, decay, momentum, down) = (splat(clip), splat(decay), splat(momentum), splat(-rate));
        for i in (0..grad.len()).step_by(LANES) {
            let old = load::<I, T>(w, i);
            let mut step = old.mul_add(decay, load::<I, T>(grad, i).mul(clip));
            if !m.is_empty() {
                let next = load::<I, T>(m, i).mul_add(momentum, step);
                store::<I, T>(next, m, i);
                step = if nesterov { next.mul_add(momentum, step) } else { next };
            }
            store::<I, T>(step.mul_add(down, old), w, i);
        }
    }
}
