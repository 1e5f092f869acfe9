use crate::lanes::{load, rows_per_chunk, store, store_wanted};
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

/// Rows of one chunk. The gradients of gain and bias are summed row by row within a chunk, then chunk by chunk.
pub const ROWS: usize = 32;

/// The inputs of the gradients. For the bias alone, only `d_y` is not empty.
#[derive(Clone, Copy)]
pub struct Known<'a, T> {
    pub x: &'a [T],
    pub mean: &'a [T],
    pub rstd: &'a [T],
    pub d_y: &'a [T],
}

impl<T> Known<'_, T> {
    /// The rows of chunk `c`.
    fn chunk(&self, c: usize, d: usize) -> Self {
        fn part<T>(all: &[T], c: usize, size: usize) -> &[T] {
            all.chunks(size).nth(c).unwrap_or_default()
        }
        Self {
            x: part(self.x, c, ROWS * d),
            mean: part(self.mean, c, ROWS),
            rstd: part(self.rstd, c, ROWS),
            d_y: part(self.d_y, c, ROWS * d),
        }
    }
}

/// The gradient of `x`, and the partial sums `[chunks, d]` of the gain's and the bias's, each only if not empty. Without the
/// gradient of `x`, `gain` is not read.
pub fn vjp<T: Real>(known: Known<T>, d: usize, gain: &[T], want: Want, d_x: &mut [T], partials: [&mut [T]; 2]) {
    let [of_gain, of_bias] = partials;
    parallel::chunks3((d_x, ROWS * d), (of_gain, d), (of_bias, d), |c, d_x, of_gain, of_bias| {
        simd::dispatch(Backward { known: known.chunk(c, d), d, gain, want, d_x, of_gain, of_bias });
    });
}

struct Backward<'a, T> {
    known: Known<'a, T>,
    d: usize,
    gain: &'a [T],
    want: Want,
    d_x: &'a mut [T],
    of_gain: &'a mut [T],
    of_bias: &'a mut [T],
}

impl<T: Real> Kernel for Backward<'_, T> {
    type Output = ();

    /// All gradients row by row, so that they read a row from memory once.
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { known: Known { x, mean, rstd, d_y }, d, gain, want, d_x, of_gain, of_bias } = self;
        let inverse_d = T::ONE / T::from_f64(d as f64);
        of_gain.fill(T::ZERO);
        of_bias.fill(T::ZERO);
        let mut known = x.chunks_exact(d).zip(mean.iter().zip(rstd));
        let mut d_x = d_x.chunks_exact_mut(d);
        for d_y in d_y.chunks_exact(d) {
            for i in (0..of_bias.len()).step_by(LANES) {
                store::<I, T>(load::<I, T>(of_bias, i).add(load::<I, T>(d_y, i)), of_bias, i);
            }
            let Some((x, (&mean, &rstd))) = known.next() else { continue };
            let scale = T::Lanes::<I>::splat(rstd);
            for i in (0..of_gain.len()).step_by(LANES) {
                let hat = centred::<I, T>(x, mean, i).mul(scale);
                store::<I, T>(hat.mul_add(load::<I, T>(d_y, i), load::<I, T>(of_gain, i)), of_gain, i);
            }
            let Some(d_x) = d_x.next() else { continue };
            let (mut sum, mut dot) = (T::Lanes::<I>::zero(), T::Lanes::<I>::zero());
            for i in (0..d).step_by(LANES) {
                let h = load::<I, T>(gain, i).mul(load::<I, T>(d_y, i));
                sum = sum.add(h);
                dot = h.mul_add(centred::<I, T>(x, mean, i), dot);
            }
            // d_x = rstd · (h − mean(h) − (x − mean) · rstd² · mean(h ⊙ (x − mean)))
            let level = T::Lanes::<I>::splat(sum.sum() * inverse_d);
            let pull = T::Lanes::<I>::splat(-(dot.sum() * inverse_d * rstd * rstd));
            for i in (0..d).step_by(LANES) {
                let h = load::<I, T>(gain, i).mul(load::<I, T>(d_y, i)).sub(level);
                store_wanted::<I, T>(want, centred::<I, T>(x, mean, i).mul_add(pull, h).mul(scale), d_x, i);
            }
        }
    }
}
