//! What the elementwise kernels share: sixteen numbers at an index, whole or the last few, the size of a parallel chunk,
//! and what to do with a gradient that is ready.

use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};

/// Elements of one parallel chunk: a few cache lines per nanosecond of scheduling, small enough for the second level cache
/// with the ten streams of an optimiser.
pub const CHUNK: usize = 8192;

/// Whole rows of `width` elements in about [`CHUNK`].
pub fn rows_per_chunk(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// The sixteen elements from `i` on; where `x` ends, zeros.
#[inline(always)]
pub fn load<I: Isa, T: Real>(x: &[T], i: usize) -> T::Lanes<I> {
    let x = &x[i..];
    if x.len() >= LANES { T::Lanes::<I>::load(x) } else { T::Lanes::<I>::load_partial(x, T::ZERO) }
}

/// Overwrites the sixteen elements from `i` on, fewer where `out` ends.
#[inline(always)]
pub fn store<I: Isa, T: Real>(lanes: T::Lanes<I>, out: &mut [T], i: usize) {
    let out = &mut out[i..];
    if out.len() >= LANES { lanes.store(out) } else { lanes.store_partial(out) }
}

/// Stores sixteen numbers of a gradient as it is wanted. `out` may be empty when it is not.
#[inline(always)]
pub fn store_wanted<I: Isa, T: Real>(want: Want, lanes: T::Lanes<I>, out: &mut [T], i: usize) {
    match want {
        Want::Skip => {}
        Want::Write => store::<I, T>(lanes, out, i),
        Want::Add => store::<I, T>(load::<I, T>(out, i).add(lanes), out, i),
    }
}

/// A function of sixteen elements at a time of each of `N` tensors.
pub trait Map<T: Real, const N: usize>: Copy + Send + Sync {
    /// Its value for lanes of each.
    fn at<I: Isa>(self, x: [T::Lanes<I>; N]) -> T::Lanes<I>;
}

/// `out` = `f` of the elements of `ins`, as it is wanted.
pub fn map<T: Real, const N: usize>(f: impl Map<T, N>, want: Want, ins: [&[T]; N], out: &mut [T]) {
    map_pieces(CHUNK, |_| f, want, ins, out);
}

/// The same with a function `f(i)` of its own for piece number i of so many elements.
pub fn map_pieces<T: Real, const N: usize, F: Map<T, N>>(
    size: usize,
    f: impl Fn(usize) -> F + Send + Sync,
    want: Want,
    ins: [&[T]; N],
    out: &mut [T],
) {
    parallel::chunks(out, size, |i, out| {
        simd::dispatch(Piece { f: f(i), want, ins: ins.map(|x| &x[i * size..]), out });
    });
}

/// [`map`] for one thread, for as many elements as `out` has.
pub struct Piece<'a, T, F, const N: usize> {
    pub f: F,
    pub want: Want,
    pub ins: [&'a [T]; N],
    pub out: &'a mut [T],
}

impl<T: Real, F: Map<T, N>, const N: usize> Kernel for Piece<'_, T, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        for i in (0..self.out.len()).step_by(LANES) {
            let lanes = self.f.at::<I>(self.ins.map(|x| load::<I, T>(x, i)));
            store_wanted::<I, T>(self.want, lanes, self.out, i);
        }
    }
}

/// Columns that one task sums over all rows.
pub const COLUMNS: usize = 128;

/// Adds up columns, each on one thread: `add(first, sums)` for the columns from `first` on.
pub fn sum_columns<T: Real>(want: Want, sums: &mut [T], add: impl Fn(usize, &mut [T]) + Sync + Send) {
    parallel::chunks(sums, COLUMNS, |c, sums| {
        if want == Want::Write {
            sums.fill(T::ZERO);
        }
        add(c * COLUMNS, sums);
    });
}

/// The sum of all rows of `x`, in their order.
pub fn sum_rows<T: Real>(want: Want, x: &[T], sums: &mut [T]) {
    let width = sums.len();
    sum_columns(want, sums, |first, sums| {
        for row in x.chunks_exact(width) {
            sums.iter_mut().zip(&row[first..]).for_each(|(sum, &x)| *sum += x);
        }
    });
}

/// 1/(1 + e⁻ˣ)
#[inline(always)]
pub fn sigmoid<I: Isa, T: Real>(x: T::Lanes<I>) -> T::Lanes<I> {
    let one = T::Lanes::<I>::splat(T::ONE);
    one.div(one.add(x.neg().exp()))
}
