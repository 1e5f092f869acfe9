use crate::lanes::{Map, load};
use engine::parallel;
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};

/// σ = exp(λ/2). σ² is always its square, so that every KL of a posterior has the same bits.
#[inline(always)]
pub fn sigma<I: Isa, T: Real>(logvar: T::Lanes<I>) -> T::Lanes<I> {
    logvar.mul(T::Lanes::<I>::splat(T::from_f64(0.5))).exp()
}

/// Twice the KL of sixteen coordinates: μ² + σ² − λ − 1. Zeros give zero.
#[inline(always)]
pub fn twice_kl<I: Isa, T: Real>(mu: T::Lanes<I>, logvar: T::Lanes<I>, var: T::Lanes<I>) -> T::Lanes<I> {
    mu.mul_add(mu, var.sub(logvar).sub(T::Lanes::<I>::splat(T::ONE)))
}

/// `z = mu + exp(logvar/2) ⊙ eps`
#[derive(Clone, Copy)]
pub struct Draw;

impl<T: Real> Map<T, 3> for Draw {
    #[inline(always)]
    fn at<I: Isa>(self, [mu, logvar, eps]: [T::Lanes<I>; 3]) -> T::Lanes<I> {
        sigma::<I, T>(logvar).mul_add(eps, mu)
    }
}

/// `d_logvar = ½ d_z ⊙ eps ⊙ σ`
#[derive(Clone, Copy)]
pub struct DrawLogvar;

impl<T: Real> Map<T, 3> for DrawLogvar {
    #[inline(always)]
    fn at<I: Isa>(self, [logvar, eps, d_z]: [T::Lanes<I>; 3]) -> T::Lanes<I> {
        d_z.mul(eps).mul(sigma::<I, T>(logvar)).mul(T::Lanes::<I>::splat(T::from_f64(0.5)))
    }
}

/// `d_eps = d_z ⊙ σ`
#[derive(Clone, Copy)]
pub struct DrawEps;

impl<T: Real> Map<T, 2> for DrawEps {
    #[inline(always)]
    fn at<I: Isa>(self, [logvar, d_z]: [T::Lanes<I>; 2]) -> T::Lanes<I> {
        d_z.mul(sigma::<I, T>(logvar))
    }
}

pub fn kl<T: Real>(d: usize, mu: &[T], logvar: &[T], kl: &mut [T]) {
    let sample = mu.len() / kl.len();
    parallel::chunks(kl, 1, |b, kl| {
        let (mu, logvar) = (&mu[b * sample..][..sample], &logvar[b * sample..][..sample]);
        kl[0] = simd::dispatch(Kl { d, mu, logvar });
    });
}

struct Kl<'a, T> {
    d: usize,
    mu: &'a [T],
    logvar: &'a [T],
}

impl<T: Real> Kernel for Kl<'_, T> {
    type Output = T;

    #[inline(always)]
    fn run<I: Isa>(self) -> T {
        let Self { d, mu, logvar } = self;
        let mut total = T::ZERO;
        for (mu, logvar) in mu.chunks_exact(d).zip(logvar.chunks_exact(d)) {
            let mut twice = T::Lanes::<I>::zero();
            for i in (0..d).step_by(LANES) {
                let (mu, logvar) = (load::<I, T>(mu, i), load::<I, T>(logvar, i));
                let sigma = sigma::<I, T>(logvar);
                twice = twice.add(twice_kl::<I, T>(mu, logvar, sigma.mul(sigma)));
            }
            total += twice.sum() * T::from_f64(0.5);
        }
        total
    }
}

/// μ times a sample's gradient.
#[derive(Clone, Copy)]
pub struct KlMu<T>(pub T);

impl<T: Real> Map<T, 1> for KlMu<T> {
    #[inline(always)]
    fn at<I: Isa>(self, [mu]: [T::Lanes<I>; 1]) -> T::Lanes<I> {
        mu.mul(T::Lanes::<I>::splat(self.0))
    }
}

/// σ² − 1 times half a sample's gradient.
#[derive(Clone, Copy)]
pub struct KlLogvar<T>(pub T);

impl<T: Real> Map<T, 1> for KlLogvar<T> {
    #[inline(always)]
    fn at<I: Isa>(self, [logvar]: [T::Lanes<I>; 1]) -> T::Lanes<I> {
        let sigma = sigma::<I, T>(logvar);
        let half_d_kl = T::Lanes::<I>::splat(self.0 * T::from_f64(0.5));
        sigma.mul_add(sigma, T::Lanes::<I>::splat(-T::ONE)).mul(half_d_kl)
    }
}
