use crate::lanes::{load, rows_per_chunk, store, store_wanted, sum_columns};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};

/// `learned` is gain and bias.
pub fn forward<T: Real>(eps: f64, x: &[T], learned: [&[T]; 2], y: &mut [T], mean: &mut [T], rstd: &mut [T]) {
    let (d, eps) = (learned[0].len(), T::from_f64(eps));
    let rows = rows_per_chunk(d);
    parallel::chunks3((y, rows * d), (mean, rows), (rstd, rows), |c, y, mean, rstd| {
        simd::dispatch(Forward { eps, x: &x[c * rows * d..][..y.len()], learned, y, mean, rstd });
    });
}

struct Forward<'a, T> {
    eps: T,
    x: &'a [T],
    learned: [&'a [T]; 2],
    y: &'a mut [T],
    mean: &'a mut [T],
    rstd: &'a mut [T],
}

/// The sixteen elements from `i` on minus `mean`, zeros beyond the row.
#[inline(always)]
fn centred<I: Isa, T: Real>(x: &[T], mean: T, i: usize) -> T::Lanes<I> {
    let x = &x[i..];
    let x = if x.len() >= LANES { T::Lanes::<I>::load(x) } else { T::Lanes::<I>::load_partial(x, mean) };
    x.sub(T::Lanes::<I>::splat(mean))
}

impl<T: Real> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { eps, x, learned: [gain, bias], y, mean, rstd } = self;
        let d = gain.len();
        let inverse_d = T::ONE / T::from_f64(d as f64);
        let rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d));
        for ((x, y), (mean, rstd)) in rows.zip(mean.iter_mut().zip(rstd)) {
            let mut total = T::Lanes::<I>::zero();
            for i in (0..d).step_by(LANES) {
                total = total.add(load::<I, T>(x, i));
            }
            *mean = total.sum() * inverse_d;
            let mut squares = T::Lanes::<I>::zero();
            for i in (0..d).step_by(LANES) {
                let x = centred::<I, T>(x, *mean, i);
                squares = x.mul_add(x, squares);
            }
            *rstd = T::ONE / squares.sum().mul_add(inverse_d, eps).sqrt();
            let scale = T::Lanes::<I>::splat(*rstd);
            for i in (0..d).step_by(LANES) {
                let hat = centred::<I, T>(x, *mean, i).mul(scale);
                store::<I, T>(hat.mul_add(load::<I, T>(gain, i), load::<I, T>(bias, i)), y, i);
            }
        }
    }
}

/// The inputs of the gradients of `x` and of the gain.
#[derive(Clone, Copy)]
pub struct Known<'a, T> {
    pub x: &'a [T],
    pub mean: &'a [T],
    pub rstd: &'a [T],
    pub d_y: &'a [T],
}

pub fn vjp_x<T: Real>(known: Known<T>, gain: &[T], want: Want, d_x: &mut [T]) {
    let d = gain.len();
    let rows = rows_per_chunk(d);
    parallel::chunks(d_x, rows * d, |c, d_x| {
        let at = c * rows;
        let known = Known {
            x: &known.x[at * d..],
            mean: &known.mean[at..],
            rstd: &known.rstd[at..],
            d_y: &known.d_y[at * d..],
        };
        simd::dispatch(BackwardX { known, gain, want, d_x });
    });
}

struct BackwardX<'a, T> {
    known: Known<'a, T>,
    gain: &'a [T],
    want: Want,
    d_x: &'a mut [T],
}

impl<T: Real> Kernel for BackwardX<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { known: Known { x, mean, rstd, d_y }, gain, want, d_x } = self;
        let d = gain.len();
        let inverse_d = T::ONE / T::from_f64(d as f64);
        let rows = x.chunks_exact(d).zip(d_y.chunks_exact(d)).zip(mean.iter().zip(rstd));
        for (((x, d_y), (&mean, &rstd)), d_x) in rows.zip(d_x.chunks_exact_mut(d)) {
            let (mut sum, mut dot) = (T::Lanes::<I>::zero(), T::Lanes::<I>::zero());
            for i in (0..d).step_by(LANES) {
                let h = load::<I, T>(gain, i).mul(load::<I, T>(d_y, i));
                sum = sum.add(h);
                dot = h.mul_add(centred::<I, T>(x, mean, i), dot);
            }
            // d_x = rstd · (h − mean(h) − (x − mean) · rstd² · mean(h ⊙ (x − mean)))
            let level = T::Lanes::<I>::splat(sum.sum() * inverse_d);
            let pull = T::Lanes::<I>::splat(-(dot.sum() * inverse_d * rstd * rstd));
            let scale = T::Lanes::<I>::splat(rstd);
            for i in (0..d).step_by(LANES) {
                let h = load::<I, T>(gain, i).mul(load::<I, T>(d_y, i)).sub(level);
                store_wanted::<I, T>(want, centred::<I, T>(x, mean, i).mul_add(pull, h).mul(scale), d_x, i);
            }
        }
    }
}

pub fn vjp_gain<T: Real>(known: Known<T>, want: Want, d_gain: &mut [T]) {
    let d = d_gain.len();
    sum_columns(want, d_gain, |first, sums| {
        let rows = known.x.chunks_exact(d).zip(known.d_y.chunks_exact(d));
        for ((x, d_y), (&mean, &rstd)) in rows.zip(known.mean.iter().zip(known.rstd)) {
            let columns = sums.iter_mut().zip(&x[first..]).zip(&d_y[first..]);
            columns.for_each(|((sum, &x), &d_y)| *sum += (x - mean) * rstd * d_y);
        }
    });
}
