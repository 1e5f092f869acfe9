use crate::lanes::{CHUNK, load, store, store_wanted};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};

/// σ = exp(λ/2); σ² is its square everywhere, so that every KL of the same posterior has the same bits.
#[inline(always)]
pub fn sigma<I: Isa, T: Real>(logvar: T::Lanes<I>) -> T::Lanes<I> {
    logvar.mul(T::Lanes::<I>::splat(T::from_f64(0.5))).exp()
}

/// Twice the KL of sixteen coordinates: μ² + σ² − λ − 1. Zeros give zero.
#[inline(always)]
pub fn twice_kl<I: Isa, T: Real>(mu: T::Lanes<I>, logvar: T::Lanes<I>, var: T::Lanes<I>) -> T::Lanes<I> {
    mu.mul_add(mu, var.sub(logvar).sub(T::Lanes::<I>::splat(T::ONE)))
}

pub fn reparameterize<T: Real>(mu: &[T], logvar: &[T], eps: &[T], z: &mut [T]) {
    parallel::chunks(z, CHUNK, |c, z| {
        let at = c * CHUNK;
        simd::dispatch(Draw { mu: &mu[at..], logvar: &logvar[at..], eps: &eps[at..], z });
    });
}

/// `z = mu + exp(logvar/2) ⊙ eps` for as many elements as `z` has.
pub struct Draw<'a, T> {
    pub mu: &'a [T],
    pub logvar: &'a [T],
    pub eps: &'a [T],
    pub z: &'a mut [T],
}

impl<T: Real> Kernel for Draw<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { mu, logvar, eps, z } = self;
        for i in (0..z.len()).step_by(LANES) {
            let sigma = sigma::<I, T>(load::<I, T>(logvar, i));
            store::<I, T>(sigma.mul_add(load::<I, T>(eps, i), load::<I, T>(mu, i)), z, i);
        }
    }
}

pub fn reparameterize_d_logvar<T: Real>(want: Want, logvar: &[T], eps: &[T], d_z: &[T], d_logvar: &mut [T]) {
    parallel::chunks(d_logvar, CHUNK, |c, d_logvar| {
        let at = c * CHUNK;
        simd::dispatch(DrawLogvar { want, logvar: &logvar[at..], eps: &eps[at..], d_z: &d_z[at..], d_logvar });
    });
}

struct DrawLogvar<'a, T> {
    want: Want,
    logvar: &'a [T],
    eps: &'a [T],
    d_z: &'a [T],
    d_logvar: &'a mut [T],
}

impl<T: Real> Kernel for DrawLogvar<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { want, logvar, eps, d_z, d_logvar } = self;
        let half = T::Lanes::<I>::splat(T::from_f64(0.5));
        for i in (0..d_logvar.len()).step_by(LANES) {
            let sigma = sigma::<I, T>(load::<I, T>(logvar, i));
            let d = load::<I, T>(d_z, i).mul(load::<I, T>(eps, i)).mul(sigma).mul(half);
            store_wanted::<I, T>(want, d, d_logvar, i);
        }
    }
}

pub fn reparameterize_d_eps<T: Real>(want: Want, logvar: &[T], d_z: &[T], d_eps: &mut [T]) {
    parallel::chunks(d_eps, CHUNK, |c, d_eps| {
        let at = c * CHUNK;
        simd::dispatch(DrawEps { want, logvar: &logvar[at..], d_z: &d_z[at..], d_eps });
    });
}

struct DrawEps<'a, T> {
    want: Want,
    logvar: &'a [T],
    d_z: &'a [T],
    d_eps: &'a mut [T],
}

impl<T: Real> Kernel for DrawEps<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { want, logvar, d_z, d_eps } = self;
        for i in (0..d_eps.len()).step_by(LANES) {
            let sigma = sigma::<I, T>(load::<I, T>(logvar, i));
            store_wanted::<I, T>(want, load::<I, T>(d_z, i).mul(sigma), d_eps, i);
        }
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

pub fn kl_d_mu<T: Real>(want: Want, mu: &[T], d_kl: &[T], d_mu: &mut [T]) {
    let sample = d_mu.len() / d_kl.len();
    parallel::chunks(d_mu, sample, |b, d_mu| {
        simd::dispatch(KlMu { want, mu: &mu[b * sample..], d_kl: d_kl[b], d_mu });
    });
}

struct KlMu<'a, T> {
    want: Want,
    mu: &'a [T],
    d_kl: T,
    d_mu: &'a mut [T],
}

impl<T: Real> Kernel for KlMu<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let d_kl = T::Lanes::<I>::splat(self.d_kl);
        for i in (0..self.d_mu.len()).step_by(LANES) {
            store_wanted::<I, T>(self.want, load::<I, T>(self.mu, i).mul(d_kl), self.d_mu, i);
        }
    }
}

pub fn kl_d_logvar<T: Real>(want: Want, logvar: &[T], d_kl: &[T], d_logvar: &mut [T]) {
    let sample = d_logvar.len() / d_kl.len();
    parallel::chunks(d_logvar, sample, |b, d_logvar| {
        simd::dispatch(KlLogvar { want, logvar: &logvar[b * sample..], d_kl: d_kl[b], d_logvar });
    });
}

struct KlLogvar<'a, T> {
    want: Want,
    logvar: &'a [T],
    d_kl: T,
    d_logvar: &'a mut [T],
}

impl<T: Real> Kernel for KlLogvar<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let half_d_kl = T::Lanes::<I>::splat(self.d_kl * T::from_f64(0.5));
        let one = T::Lanes::<I>::splat(T::ONE);
        for i in (0..self.d_logvar.len()).step_by(LANES) {
            let sigma = sigma::<I, T>(load::<I, T>(self.logvar, i));
            store_wanted::<I, T>(self.want, sigma.mul_add(sigma, one.neg()).mul(half_d_kl), self.d_logvar, i);
        }
    }
}
