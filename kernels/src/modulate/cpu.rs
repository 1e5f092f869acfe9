use crate::lanes::{Map, Piece, rows_per_chunk, sum_columns, sum_rows};
use engine::simd::{self, Isa, Lanes, Real};
use engine::{Want, parallel};

/// (base + factor)·x + term
#[derive(Clone, Copy)]
struct Modulated<T>(T);

impl<T: Real> Map<T, 3> for Modulated<T> {
    #[inline(always)]
    fn at<I: Isa>(self, [x, term, factor]: [T::Lanes<I>; 3]) -> T::Lanes<I> {
        x.mul_add(T::Lanes::<I>::splat(self.0).add(factor), term)
    }
}

/// (base + factor)·x
#[derive(Clone, Copy)]
struct Scaled<T>(T);

impl<T: Real> Map<T, 2> for Scaled<T> {
    #[inline(always)]
    fn at<I: Isa>(self, [x, factor]: [T::Lanes<I>; 2]) -> T::Lanes<I> {
        x.mul(T::Lanes::<I>::splat(self.0).add(factor))
    }
}

/// Writes or adds `f` of the rows of `ins` to the rows of `out`, of `d` numbers. An input has a row for each row of `out` or for each
/// sample.
fn map<T: Real, const N: usize>(f: impl Map<T, N>, tokens: usize, d: usize, ins: [&[T]; N], want: Want, out: &mut [T]) {
    let (rows, len) = (rows_per_chunk(d), out.len());
    parallel::chunks(out, rows * d, |c, out| {
        for (i, out) in out.chunks_exact_mut(d).enumerate() {
            let row = c * rows + i;
            let ins = ins.map(|x| &x[if x.len() == len { row } else { row / tokens } * d..][..d]);
            simd::dispatch(Piece { f, want, ins, out });
        }
    });
}

/// `x` [B, N, d], `term` [B, d] or [B, N, d], `factor` [B, d] → `y` [B, N, d].
pub fn forward<T: Real>(base: f64, tokens: usize, d: usize, ins: [&[T]; 3], y: &mut [T]) {
    map(Modulated(T::from_f64(base)), tokens, d, ins, Want::Write, y);
}

/// The gradient of `x` from `d_y` and `factor`.
pub fn scale<T: Real>(base: f64, tokens: usize, d: usize, ins: [&[T]; 2], want: Want, d_x: &mut [T]) {
    map(Scaled(T::from_f64(base)), tokens, d, ins, want, d_x);
}

/// `sums` [B, d]: the sums of the rows of each sample's `d_y`, each times a row of `x` if there is one, in the order of the tokens.
pub fn sum<T: Real>(tokens: usize, d: usize, d_y: &[T], x: Option<&[T]>, want: Want, sums: &mut [T]) {
    parallel::chunks(sums, d, |sample, sums| {
        let own = sample * tokens * d..(sample + 1) * tokens * d;
        let d_y = &d_y[own.clone()];
        let Some(x) = x.map(|x| &x[own]) else { return sum_rows(want, d_y, sums) };
        sum_columns(want, sums, |first, sums| {
            for (x, d_y) in x.chunks_exact(d).zip(d_y.chunks_exact(d)) {
                let products = x[first..].iter().zip(&d_y[first..]);
                sums.iter_mut().zip(products).for_each(|(sum, (&x, &d_y))| *sum += x * d_y);
            }
        });
    });
}
