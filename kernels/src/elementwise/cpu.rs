//! The rows of the functions, and the loops over elements: values, gradients, and gradients summed over broadcast elements.

use super::{CUBIC, Elementwise, LINEAR};
use crate::lanes::{CHUNK, load, sigmoid, store_wanted};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{DType, Want, parallel};
use std::ops::Range;

#[inline(always)]
fn constant<I: Isa, T: Real>(x: f64) -> T::Lanes<I> {
    T::Lanes::<I>::splat(T::from_f64(x))
}

/// Sixteen elements of every operand, loaded where a row reads them.
#[derive(Clone, Copy)]
struct At<'a, T> {
    /// The inputs, the result and its gradient, from the piece of the loop on.
    operands: [&'a [T]; 5],
    i: usize,
}

impl<T: Real> At<'_, T> {
    #[inline(always)]
    fn operand<I: Isa>(&self, k: usize) -> T::Lanes<I> {
        load::<I, T>(self.operands[k], self.i)
    }
}

/// The value of `f`.
#[inline(always)]
fn value<I: Isa, T: Real>(f: Elementwise, at: At<T>) -> T::Lanes<I> {
    let a = at.operand::<I>(0);
    let zero = T::Lanes::<I>::zero();
    match f {
        Elementwise::Add => a.add(at.operand::<I>(1)),
        Elementwise::Sub => a.sub(at.operand::<I>(1)),
        Elementwise::Mul => a.mul(at.operand::<I>(1)),
        Elementwise::Div => a.div(at.operand::<I>(1)),
        Elementwise::Neg => a.neg(),
        Elementwise::Exp => a.exp(),
        Elementwise::Log => a.ln(),
        Elementwise::Sqrt => a.sqrt(),
        Elementwise::Pow(p) => power::<I, T>(a, p),
        Elementwise::Tanh => tanh::<I, T>(a),
        Elementwise::Sigmoid => sigmoid::<I, T>(a),
        // Every maximum and minimum returns its second operand if that is NaN.
        Elementwise::Relu => zero.max(a),
        Elementwise::Silu => a.mul(sigmoid::<I, T>(a)),
        Elementwise::Gelu => a.mul(gate::<I, T>(a).1),
        Elementwise::Abs => absolute::<I, T>(a),
        Elementwise::Clamp { low, high } => constant::<I, T>(high).min(constant::<I, T>(low).max(a)),
        Elementwise::Where => a.select(zero, at.operand::<I>(1), at.operand::<I>(2)),
        Elementwise::SquaredError => {
            let difference = a.sub(at.operand::<I>(1));
            difference.mul(difference)
        }
        Elementwise::BinaryCrossEntropy => {
            zero.max(a).sub(a.mul(at.operand::<I>(1))).add(log_one_plus::<I, T>(absolute::<I, T>(a).neg().exp()))
        }
    }
}

/// The gradient of input `i` of `f`: the derivative times the result's gradient.
#[inline(always)]
fn gradient<I: Isa, T: Real>(f: Elementwise, i: usize, at: At<T>) -> T::Lanes<I> {
    let d = at.operand::<I>(4);
    let (zero, one) = (T::Lanes::<I>::zero(), T::Lanes::<I>::splat(T::ONE));
    match (f, i) {
        (Elementwise::Add, _) | (Elementwise::Sub, 0) => d,
        (Elementwise::Sub, _) | (Elementwise::Neg, _) => d.neg(),
        (Elementwise::Mul, 0) => d.mul(at.operand::<I>(1)),
        (Elementwise::Mul, _) => d.mul(at.operand::<I>(0)),
        (Elementwise::Div, 0) => d.div(at.operand::<I>(1)),
        (Elementwise::Div, _) => d.mul(at.operand::<I>(3)).div(at.operand::<I>(1)).neg(),
        (Elementwise::Exp, _) => d.mul(at.operand::<I>(3)),
        (Elementwise::Log, _) => d.div(at.operand::<I>(0)),
        (Elementwise::Sqrt, _) => d.div(at.operand::<I>(3).add(at.operand::<I>(3))),
        (Elementwise::Pow(0.0), _) => zero,
        (Elementwise::Pow(p), _) => d.mul(constant::<I, T>(p)).mul(power::<I, T>(at.operand::<I>(0), p - 1.0)),
        (Elementwise::Tanh, _) => {
            let y = at.operand::<I>(3);
            d.mul(one.sub(y.mul(y)))
        }
        (Elementwise::Sigmoid, _) => {
            let y = at.operand::<I>(3);
            d.mul(y).mul(one.sub(y))
        }
        (Elementwise::Relu, _) => at.operand::<I>(3).select(zero, d, zero),
        (Elementwise::Silu, _) => {
            let a = at.operand::<I>(0);
            let s = sigmoid::<I, T>(a);
            d.mul(a.mul(s).mul_add(one.sub(s), s))
        }
        (Elementwise::Gelu, _) => {
            // Beyond, s is 0 or 1, and the square must not overflow.
            let most = constant::<I, T>(1e4);
            let a = most.min(most.neg().max(at.operand::<I>(0)));
            let (square, s) = gate::<I, T>(a);
            let bend = a.mul(s).mul(one.sub(s));
            d.mul(bend.mul_add(square.mul_add(constant::<I, T>(3.0 * CUBIC), constant::<I, T>(LINEAR)), s))
        }
        (Elementwise::Abs, _) => {
            let a = at.operand::<I>(0);
            a.select(zero, d, zero.select(a, d.neg(), zero))
        }
        (Elementwise::Clamp { low, high }, _) => {
            let a = at.operand::<I>(0);
            constant::<I, T>(low).select(a, zero, a.select(constant::<I, T>(high), zero, d))
        }
        (Elementwise::Where, 1) => at.operand::<I>(0).select(zero, d, zero),
        (Elementwise::Where, _) => at.operand::<I>(0).select(zero, zero, d),
        (Elementwise::SquaredError, i) => {
            let difference = at.operand::<I>(i).sub(at.operand::<I>(1 - i));
            d.mul(difference.add(difference))
        }
        (Elementwise::BinaryCrossEntropy, 0) => d.mul(sigmoid::<I, T>(at.operand::<I>(0)).sub(at.operand::<I>(1))),
        (Elementwise::BinaryCrossEntropy, _) => d.mul(at.operand::<I>(0)).neg(),
    }
}

/// |x|, 0 for both zeros.
#[inline(always)]
fn absolute<I: Isa, T: Real>(x: T::Lanes<I>) -> T::Lanes<I> {
    let zero = T::Lanes::<I>::zero();
    x.select(zero, x, zero.sub(x))
}

/// xᵖ: repeated squaring if p is an integer, after a square root if it is half an odd integer, else exp(p·ln x), whose relative
/// error is about |p·ln x| units in the last place.
#[inline(always)]
fn power<I: Isa, T: Real>(x: T::Lanes<I>, p: f64) -> T::Lanes<I> {
    let size = p.abs();
    let (whole, rest) = (size.trunc(), size.fract());
    if whole >= f64::from(u32::MAX) || !matches!(rest, 0.0 | 0.5) {
        return x.ln().mul(constant::<I, T>(p)).exp();
    }
    let mut y = if rest == 0.0 { constant::<I, T>(1.0) } else { x.sqrt() };
    let (mut n, mut square) = (whole as u32, x);
    while n > 0 {
        if n % 2 == 1 {
            y = y.mul(square);
        }
        n /= 2;
        square = square.mul(square);
    }
    if p < 0.0 { constant::<I, T>(1.0).div(y) } else { y }
}

/// tanh x: near zero a rational function of x² (Cephes, 1989), elsewhere 1 − 2/(e²ˣ + 1), whose difference loses no digits there.
#[inline(always)]
fn tanh<I: Isa, T: Real>(x: T::Lanes<I>) -> T::Lanes<I> {
    let one = constant::<I, T>(1.0);
    let square = x.mul(x);
    let above = square.mul_add(constant::<I, T>(-9.643_991_794_250_523e-1), constant::<I, T>(-9.928_772_310_019_186e1));
    let above = square.mul_add(above, constant::<I, T>(-1.614_687_684_417_084_5e3));
    let below = square.add(constant::<I, T>(1.128_116_784_916_329_3e2));
    let below = square.mul_add(below, constant::<I, T>(2.235_488_390_601_004_5e3));
    let below = square.mul_add(below, constant::<I, T>(4.844_063_053_251_255e3));
    let near = x.mul(square).mul(above.div(below)).add(x);
    let size = absolute::<I, T>(x);
    let far = one.sub(constant::<I, T>(2.0).div(size.add(size).exp().add(one)));
    let far = x.select(T::Lanes::<I>::zero(), far, far.neg());
    size.select(constant::<I, T>(0.625), far, near)
}

/// ln(1 + u) for 0 ≤ u ≤ 1, also of tiny u: 2·artanh(s), s = u/(u + 2); from √2 − 1 on ln 2 + 2·artanh(s), s = (u − 1)/(u + 3).
#[inline(always)]
fn log_one_plus<I: Isa, T: Real>(u: T::Lanes<I>) -> T::Lanes<I> {
    let limit = constant::<I, T>(std::f64::consts::SQRT_2 - 1.0);
    let above = u.select(limit, u.sub(constant::<I, T>(1.0)), u);
    let below = u.add(u.select(limit, constant::<I, T>(3.0), constant::<I, T>(2.0)));
    let s = above.div(below);
    let square = s.mul(s);
    // The terms beyond s¹⁹/19 are below a unit in the last place of f64, because |s| ≤ 0.172; those beyond s⁹/9 in f32.
    let odds: &[f64] = &[19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0];
    let odds = if T::DTYPE == DType::F64 { odds } else { &odds[5..] };
    let mut series = constant::<I, T>(1.0 / odds[0]);
    for &odd in &odds[1..] {
        series = series.mul_add(square, constant::<I, T>(1.0 / odd));
    }
    let base = u.select(limit, constant::<I, T>(std::f64::consts::LN_2), T::Lanes::<I>::zero());
    s.add(s).mul_add(series, base)
}

/// u², and the sigmoid of a(u), of the Gaussian error linear unit.
#[inline(always)]
fn gate<I: Isa, T: Real>(u: T::Lanes<I>) -> (T::Lanes<I>, T::Lanes<I>) {
    let square = u.mul(u);
    let a = square.mul_add(constant::<I, T>(CUBIC), constant::<I, T>(LINEAR)).mul(u);
    (square, sigmoid::<I, T>(a))
}

/// A tensor whose element for index i of the result is number `i % len`; empty if it is not read, for which zeros stand.
#[derive(Clone, Copy)]
pub struct Operand<'a, T>(&'a [T]);

/// Shorter periods are repeated, so that a piece of the loop has at least so many elements.
const SHORT: usize = 256;

/// Repetitions of a tensor of `len` elements.
fn repeats(len: usize) -> usize {
    if len < SHORT { SHORT.div_ceil(len) } else { 1 }
}

/// Room for a repeated tensor.
type Tile<T> = [T; 2 * SHORT];

/// Calls `use_them` with the inputs, of which broadcast ones that are short are repeated.
fn operands<T: Real, R>(ins: [&[T]; 3], n: usize, use_them: impl FnOnce([Operand<T>; 3]) -> R) -> R {
    let mut tiles: [Tile<T>; 3] = [[T::ZERO; 2 * SHORT]; 3];
    for (x, tile) in ins.iter().zip(&mut tiles).filter(|(x, _)| !x.is_empty() && x.len() < SHORT && x.len() < n) {
        tile[..x.len() * repeats(x.len())].chunks_exact_mut(x.len()).for_each(|copy| copy.copy_from_slice(x));
    }
    use_them(std::array::from_fn(|i| match ins[i].len() {
        len if len > 0 && len < SHORT && len < n => Operand(&tiles[i][..len * repeats(len)]),
        _ => Operand(ins[i]),
    }))
}

/// What a loop computes.
#[derive(Clone, Copy)]
enum What {
    Value,
    /// The gradient of this input.
    Gradient(usize),
}

/// A loop on one thread over the elements of `out`, of which the first has index `first` in the result.
struct Loop<'a, T> {
    f: Elementwise,
    what: What,
    x: [Operand<'a, T>; 3],
    y: Operand<'a, T>,
    d: Operand<'a, T>,
    first: usize,
    want: Want,
    out: &'a mut [T],
}

impl<T: Real> Kernel for Loop<'_, T> {
    type Output = ();

    /// The most frequent functions have loops of their own, without a jump for every sixteen elements.
    #[inline(always)]
    fn run<I: Isa>(self) {
        match (self.f, self.what) {
            (Elementwise::Add, What::Value) => self.each::<I>(Elementwise::Add, What::Value),
            (Elementwise::Add, What::Gradient(_)) => self.each::<I>(Elementwise::Add, What::Gradient(0)),
            (Elementwise::Mul, What::Value) => self.each::<I>(Elementwise::Mul, What::Value),
            (Elementwise::Exp, What::Value) => self.each::<I>(Elementwise::Exp, What::Value),
            (Elementwise::Gelu, What::Value) => self.each::<I>(Elementwise::Gelu, What::Value),
            (Elementwise::Gelu, What::Gradient(_)) => self.each::<I>(Elementwise::Gelu, What::Gradient(0)),
            (f, what) => self.each::<I>(f, what),
        }
    }
}

impl<T: Real> Loop<'_, T> {
    #[inline(always)]
    fn each<I: Isa>(self, f: Elementwise, what: What) {
        let Self { x, y, d, first, want, out, .. } = self;
        let mut done = 0;
        while done < out.len() {
            // The piece ends where one of the operands does.
            let (mut operands, mut len) = ([&[][..]; 5], out.len() - done);
            for (piece, operand) in operands.iter_mut().zip([x[0], x[1], x[2], y, d]) {
                if !operand.0.is_empty() {
                    *piece = &operand.0[(first + done) % operand.0.len()..];
                    len = len.min(piece.len());
                }
            }
            let out = &mut out[done..done + len];
            for i in (0..len).step_by(LANES) {
                let at = At { operands, i };
                let result = match what {
                    What::Value => value::<I, T>(f, at),
                    What::Gradient(which) => gradient::<I, T>(f, which, at),
                };
                store_wanted::<I, T>(want, result, out, i);
            }
            done += len;
        }
    }
}

/// Writes the values to `y`.
pub fn forward<T: Real>(f: Elementwise, ins: [&[T]; 3], y: &mut [T]) {
    operands(ins, y.len(), |x| {
        parallel::chunks(y, CHUNK, |c, out| {
            let (y, d) = (Operand(&[]), Operand(&[]));
            simd::dispatch(Loop { f, what: What::Value, x, y, d, first: c * CHUNK, want: Want::Write, out });
        });
    });
}

/// The gradient of input `i` from the inputs, the result and its gradient; inputs and result are empty if the function's
/// derivative does not read them. `partials` has as many elements as the function of that name says.
pub fn vjp<T: Real>(
    f: Elementwise,
    i: usize,
    ins: [&[T]; 3],
    [y, d_y]: [&[T]; 2],
    want: Want,
    d_x: &mut [T],
    partials: &mut [T],
) {
    let what = What::Gradient(i);
    let (n, own) = (d_y.len(), d_x.len());
    operands(ins, n, |x| {
        let add_rows = |rows: Range<usize>, period: usize, column: usize, sums: &mut [T]| {
            for row in rows {
                let first = row * period + column;
                let len = sums.len().min(n - first);
                let out = &mut sums[..len];
                simd::dispatch(Loop { f, what, x, y: Operand(y), d: Operand(d_y), first, want: Want::Add, out });
            }
        };
        match Sums::of(own, n) {
            Sums::None => parallel::chunks(d_x, CHUNK, |c, out| {
                simd::dispatch(Loop { f, what, x, y: Operand(y), d: Operand(d_y), first: c * CHUNK, want, out });
            }),
            Sums::ByColumns => parallel::chunks(d_x, SHORT, |c, sums| {
                if want == Want::Write {
                    sums.fill(T::ZERO);
                }
                add_rows(0..n / own, own, c * SHORT, sums);
            }),
            Sums::ByBlocks { period, rows_per_block } => {
                let rows = n.div_ceil(period);
                parallel::chunks(partials, period, |block, sums| {
                    sums.fill(T::ZERO);
                    let first = block * rows_per_block;
                    add_rows(first..rows.min(first + rows_per_block), period, 0, sums);
                });
                if want == Want::Write {
                    d_x.fill(T::ZERO);
                }
                for part in partials.chunks(own) {
                    d_x.iter_mut().zip(part).for_each(|(sum, &part)| *sum += part);
                }
            }
        }
    });
}

/// How the gradient of an input is summed over the elements of the result that read the same element of it. The order depends
/// on the sizes alone.
enum Sums {
    /// Nothing is broadcast.
    None,
    /// Rows of the input's length in order, some columns on each thread.
    ByColumns,
    /// Rows of `period` elements, a multiple of the input's length, in blocks; then the blocks in order.
    ByBlocks { period: usize, rows_per_block: usize },
}

impl Sums {
    /// For `own` elements of the input and `n` of the result.
    fn of(own: usize, n: usize) -> Self {
        /// At least so many columns are enough work for many threads.
        const MANY: usize = 2048;
        /// As many rows are worth the partial sums of blocks, because memory is read faster row by row.
        const TALL: usize = 1024;
        if own == n {
            return Self::None;
        }
        let period = own * repeats(own);
        let rows = n.div_ceil(period);
        if own >= MANY && rows < TALL {
            return Self::ByColumns;
        }
        let blocks = (n / (4 * CHUNK)).clamp(1, 64);
        Self::ByBlocks { period, rows_per_block: rows.div_ceil(blocks).max(1) }
    }
}

/// The elements of memory that the gradient of an input of `own` elements needs when the result has `n`.
pub fn partials(own: usize, n: usize) -> usize {
    match Sums::of(own, n) {
        Sums::None | Sums::ByColumns => 0,
        Sums::ByBlocks { period, rows_per_block } => n.div_ceil(period).div_ceil(rows_per_block) * period,
    }
}
