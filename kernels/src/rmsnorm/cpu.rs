use crate::lanes::{load, store, store_wanted};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};

/// Rows of one chunk: few enough that `x` and `d_y` come from L2 when they are read a second time. The gain's gradient is summed
/// row by row within a chunk, then chunk by chunk.
pub const ROWS: usize = 32;

pub fn forward<T: Real>(eps: f64, x: &[T], gain: &[T], y: &mut [T], rstd: &mut [T]) {
    let (d, eps) = (gain.len(), T::from_f64(eps));
    parallel::chunks2(y, ROWS * d, rstd, ROWS, |c, y, rstd| {
        simd::dispatch(Forward { eps, x: &x[c * ROWS * d..][..y.len()], gain, y, rstd });
    });
}

struct Forward<'a, T> {
    eps: T,
    x: &'a [T],
    gain: &'a [T],
    y: &'a mut [T],
    rstd: &'a mut [T],
}

impl<T: Real> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { eps, x, gain, y, rstd } = self;
        let d = gain.len();
        let inverse_d = T::ONE / T::from_f64(d as f64);
        for ((x, y), rstd) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(rstd) {
            *rstd = T::ONE / simd::sum_squares::<I, T>(x).mul_add(inverse_d, eps).sqrt();
            let scale = T::Lanes::<I>::splat(*rstd);
            for i in (0..d).step_by(LANES) {
                store::<I, T>(load::<I, T>(x, i).mul(scale).mul(load::<I, T>(gain, i)), y, i);
            }
        }
    }
}

/// The inputs of both gradients.
#[derive(Clone, Copy)]
pub struct Known<'a, T> {
    pub x: &'a [T],
    pub rstd: &'a [T],
    pub d_y: &'a [T],
}

impl<T> Known<'_, T> {
    /// The rows of chunk `c`.
    fn chunk(&self, c: usize, d: usize) -> Self {
        let rows = ROWS.min(self.rstd.len() - c * ROWS);
        Self {
            x: &self.x[c * ROWS * d..][..rows * d],
            rstd: &self.rstd[c * ROWS..][..rows],
            d_y: &self.d_y[c * ROWS * d..][..rows * d],
        }
    }
}

/// The gradient of `x`, and the gain's partial sums `[chunks, d]`, each only if not empty. Without the gradient of `x`,
/// `gain` is not read.
pub fn vjp<T: Real>(known: Known<T>, d: usize, gain: &[T], want: Want, d_x: &mut [T], partials: &mut [T]) {
    parallel::chunks2(d_x, ROWS * d, partials, d, |c, d_x, partial| {
        simd::dispatch(Backward { known: known.chunk(c, d), d, gain, want, d_x, partial });
    });
}

struct Backward<'a, T> {
    known: Known<'a, T>,
    d: usize,
    gain: &'a [T],
    want: Want,
    d_x: &'a mut [T],
    partial: &'a mut [T],
}

impl<T: Real> Kernel for Backward<'_, T> {
    type Output = ();

    /// Both gradients row by row, so that they read a row from memory once.
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { known: Known { x, rstd, d_y }, d, gain, want, d_x, partial } = self;
        let inverse_d = T::ONE / T::from_f64(d as f64);
        partial.fill(T::ZERO);
        let mut d_x = d_x.chunks_exact_mut(d);
        for ((x, d_y), &rstd) in x.chunks_exact(d).zip(d_y.chunks_exact(d)).zip(rstd) {
            let scale = T::Lanes::<I>::splat(rstd);
            if let Some(d_x) = d_x.next() {
                let mut dot = T::Lanes::<I>::zero();
                for i in (0..d).step_by(LANES) {
                    dot = load::<I, T>(gain, i).mul(load::<I, T>(d_y, i)).mul_add(load::<I, T>(x, i), dot);
                }
                // d_x = rstd · (gain ⊙ d_y − x · rstd² · mean(gain ⊙ d_y ⊙ x))
                let pull = T::Lanes::<I>::splat(-(dot.sum() * inverse_d * rstd * rstd));
                for i in (0..d).step_by(LANES) {
                    let d_hat = load::<I, T>(gain, i).mul(load::<I, T>(d_y, i));
                    store_wanted::<I, T>(want, load::<I, T>(x, i).mul_add(pull, d_hat).mul(scale), d_x, i);
                }
            }
            for i in (0..partial.len()).step_by(LANES) {
                let sum = load::<I, T>(x, i).mul(scale).mul_add(load::<I, T>(d_y, i), load::<I, T>(partial, i));
                store::<I, T>(sum, partial, i);
            }
        }
    }
}
