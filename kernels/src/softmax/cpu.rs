//! Row by row. A row is read from memory once: where it is passed over again, it is in the cache.

use super::target;
use crate::lanes::{load, rows_per_chunk, store, store_wanted};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};

/// Numbers that are summed on their own: a row's sum consists of the sums of its blocks, so that wide rows lose no digits.
const BLOCK: usize = 1024;

/// `y`, or with `log` its logarithm.
pub fn forward<T: Real>(log: bool, d: usize, x: &[T], y: &mut [T]) {
    let size = rows_per_chunk(d) * d;
    parallel::chunks(y, size, |c, y| simd::dispatch(Forward { log, d, x: &x[c * size..][..y.len()], y }));
}

struct Forward<'a, T> {
    log: bool,
    d: usize,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Real> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { log, d, x, y } = self;
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            let largest = simd::max::<I, T>(x);
            let mut sum = T::ZERO;
            if log {
                for x in x.chunks(BLOCK) {
                    sum += sum_exps::<I, T>(x, largest);
                }
                // Not x − lse, whose rounding grows with the logits.
                subtract::<I, T>(x, largest, T::from_f64(sum.to_f64().ln()), y);
            } else {
                for (x, y) in x.chunks(BLOCK).zip(y.chunks_mut(BLOCK)) {
                    sum += exps::<I, T>(x, largest, y);
                }
                scale::<I, T>(T::ONE / sum, y);
            }
        }
    }
}

/// y = exp(x − shift); returns Σ y.
#[inline(always)]
fn exps<I: Isa, T: Real>(x: &[T], shift: T, y: &mut [T]) -> T {
    let shift = T::Lanes::<I>::splat(shift);
    let ((x, x_tail), (y, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
    let mut sum = T::Lanes::<I>::zero();
    for (x, y) in x.iter().zip(y) {
        let exp = T::Lanes::<I>::load(x).sub(shift).exp();
        exp.store(y);
        sum = sum.add(exp);
    }
    if !x_tail.is_empty() {
        let exp = T::Lanes::<I>::load_partial(x_tail, T::NEG_INFINITY).sub(shift).exp();
        exp.store_partial(y_tail);
        sum = sum.add(exp);
    }
    sum.sum()
}

/// Σ exp(x − shift).
#[inline(always)]
fn sum_exps<I: Isa, T: Real>(x: &[T], shift: T) -> T {
    let shift = T::Lanes::<I>::splat(shift);
    let (x, tail) = x.as_chunks::<LANES>();
    let mut sum = T::Lanes::<I>::zero();
    for x in x {
        sum = sum.add(T::Lanes::<I>::load(x).sub(shift).exp());
    }
    if !tail.is_empty() {
        sum = sum.add(T::Lanes::<I>::load_partial(tail, T::NEG_INFINITY).sub(shift).exp());
    }
    sum.sum()
}

/// y = (x − a) − b
#[inline(always)]
fn subtract<I: Isa, T: Real>(x: &[T], a: T, b: T, y: &mut [T]) {
    let (a, b) = (T::Lanes::<I>::splat(a), T::Lanes::<I>::splat(b));
    for i in (0..x.len()).step_by(LANES) {
        store::<I, T>(load::<I, T>(x, i).sub(a).sub(b), y, i);
    }
}

/// y = by · y
#[inline(always)]
fn scale<I: Isa, T: Real>(by: T, y: &mut [T]) {
    let by = T::Lanes::<I>::splat(by);
    for i in (0..y.len()).step_by(LANES) {
        store::<I, T>(load::<I, T>(y, i).mul(by), y, i);
    }
}

pub fn vjp<T: Real>(log: bool, d: usize, want: Want, [y, d_y]: [&[T]; 2], d_x: &mut [T]) {
    let size = rows_per_chunk(d) * d;
    parallel::chunks(d_x, size, |c, d_x| {
        let [y, d_y] = [y, d_y].map(|x| &x[c * size..][..d_x.len()]);
        simd::dispatch(Backward { log, d, want, y, d_y, d_x });
    });
}

struct Backward<'a, T> {
    log: bool,
    d: usize,
    want: Want,
    y: &'a [T],
    d_y: &'a [T],
    d_x: &'a mut [T],
}

impl<T: Real> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { log, d, want, y, d_y, d_x } = self;
        let rows = y.chunks_exact(d).zip(d_y.chunks_exact(d));
        for ((y, d_y), d_x) in rows.zip(d_x.chunks_exact_mut(d)) {
            let mut sum = T::ZERO;
            for (y, d_y) in y.chunks(BLOCK).zip(d_y.chunks(BLOCK)) {
                sum += if log { simd::sum::<I, T>(d_y) } else { simd::dot::<I, T>(y, d_y) };
            }
            let sum = T::Lanes::<I>::splat(sum);
            for i in (0..d).step_by(LANES) {
                let (y, d_y) = (load::<I, T>(y, i), load::<I, T>(d_y, i));
                let d = if log { y.exp().neg().mul_add(sum, d_y) } else { y.mul(d_y.sub(sum)) };
                store_wanted::<I, T>(want, d, d_x, i);
            }
        }
    }
}

pub fn losses<T: Real>(vocab: usize, logits: &[T], targets: &[i32], nll: &mut [T], lse: &mut [T]) {
    let rows = rows_per_chunk(vocab);
    parallel::chunks2(nll, rows, lse, rows, |c, nll, lse| {
        let logits = &logits[c * rows * vocab..][..nll.len() * vocab];
        simd::dispatch(Losses { vocab, logits, targets, first: c * rows, nll, lse });
    });
}

/// `first` is the number of the first row, and `targets` has those of all rows.
struct Losses<'a, T> {
    vocab: usize,
    logits: &'a [T],
    targets: &'a [i32],
    first: usize,
    nll: &'a mut [T],
    lse: &'a mut [T],
}

impl<T: Real> Kernel for Losses<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { vocab, logits, targets, first, nll, lse } = self;
        for (i, logits) in logits.chunks_exact(vocab).enumerate() {
            (nll[i], lse[i]) = (T::ZERO, T::ZERO);
            let Some(target) = target(targets, first + i, vocab) else { continue };
            let (mut largest, mut sum) = (T::NEG_INFINITY, T::ZERO);
            for logits in logits.chunks(BLOCK) {
                let next = Real::max(simd::max::<I, T>(logits), largest);
                // As long as all logits are −∞, their exponentials are zero.
                let shift = if next > T::NEG_INFINITY { next } else { T::ZERO };
                sum = Real::mul_add(sum, Real::exp(largest - shift), sum_exps::<I, T>(logits, shift));
                largest = next;
            }
            let log_sum = T::from_f64(sum.to_f64().ln());
            // Not lse − logit, which cancels if the model is confident.
            (nll[i], lse[i]) = (log_sum + (largest - logits[target]), largest + log_sum);
        }
    }
}

/// Inputs and outputs of the losses, and the gradient of these.
#[derive(Clone, Copy)]
pub struct Known<'a, T> {
    pub logits: &'a [T],
    pub targets: &'a [i32],
    pub nll: &'a [T],
    pub lse: &'a [T],
    pub d_nll: &'a [T],
}

pub fn losses_vjp<T: Real>(vocab: usize, known: Known<T>, want: Want, d_logits: &mut [T]) {
    let rows = rows_per_chunk(vocab);
    parallel::chunks(d_logits, rows * vocab, |c, d_logits| {
        simd::dispatch(LossesBackward { vocab, known, first: c * rows, want, d_logits });
    });
}

struct LossesBackward<'a, T> {
    vocab: usize,
    known: Known<'a, T>,
    first: usize,
    want: Want,
    d_logits: &'a mut [T],
}

impl<T: Real> Kernel for LossesBackward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { vocab, known: Known { logits, targets, nll, lse, d_nll }, first, want, d_logits } = self;
        for (i, d_logits) in d_logits.chunks_exact_mut(vocab).enumerate() {
            let row = first + i;
            let Some(target) = target(targets, row, vocab) else {
                if want == Want::Write {
                    d_logits.fill(T::ZERO);
                }
                continue;
            };
            let (logits, g) = (&logits[row * vocab..][..vocab], d_nll[row]);
            // x − lse. If all logits are large, lse has lost digits that nll has not.
            let precise = nll[row] < Real::max(lse[row], -lse[row]);
            let (a, b) = if precise { (logits[target], nll[row]) } else { (lse[row], T::ZERO) };
            let (a, b, g_all) = (T::Lanes::<I>::splat(a), T::Lanes::<I>::splat(b), T::Lanes::<I>::splat(g));
            for i in (0..vocab).step_by(LANES) {
                let d = load::<I, T>(logits, i).sub(a).sub(b).exp().mul(g_all);
                store_wanted::<I, T>(want, d, d_logits, i);
            }
            d_logits[target] -= g;
        }
    }
}
