//! Shared code of elementwise kernels: sixteen elements at an index, parallel chunks, and sums over rows.

use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Buffer, Element, Want, parallel};

/// Elements of one parallel chunk: enough to hide scheduling, few enough that ten streams of an optimiser fit into L2.
pub const CHUNK: usize = 8192;

/// Whole rows of `width` elements in about [`CHUNK`].
pub fn rows_per_chunk(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// Cuts scratch memory into parts of these sizes.
pub fn split<T, const N: usize>(mut memory: &mut [T], sizes: [usize; N]) -> [&mut [T]; N] {
    sizes.map(|size| memory.split_off_mut(..size).expect("as much memory as the op declared"))
}

/// The sixteen elements from `i` on, zeros beyond the end of `x`.
#[inline(always)]
pub fn load<I: Isa, T: Real>(x: &[T], i: usize) -> T::Lanes<I> {
    let x = &x[i..];
    if x.len() >= LANES { T::Lanes::<I>::load(x) } else { T::Lanes::<I>::load_partial(x, T::ZERO) }
}

/// Overwrites the sixteen elements from `i` on, or as many as `out` has.
#[inline(always)]
pub fn store<I: Isa, T: Real>(lanes: T::Lanes<I>, out: &mut [T], i: usize) {
    let out = &mut out[i..];
    if out.len() >= LANES { lanes.store(out) } else { lanes.store_partial(out) }
}

/// Writes or adds sixteen elements of a gradient. `out` may be empty for `Skip`.
#[inline(always)]
pub fn store_wanted<I: Isa, T: Real>(want: Want, lanes: T::Lanes<I>, out: &mut [T], i: usize) {
    match want {
        Want::Skip => {}
        Want::Write => store::<I, T>(lanes, out, i),
        Want::Add => store::<I, T>(load::<I, T>(out, i).add(lanes), out, i),
    }
}

/// A function of one element of each of `N` tensors, computed for sixteen at a time.
pub trait Map<T: Real, const N: usize>: Copy + Send + Sync {
    /// Its values for sixteen elements of each tensor.
    fn at<I: Isa>(self, x: [T::Lanes<I>; N]) -> T::Lanes<I>;
}

/// Writes `f` of the elements of `ins` to `out`, or adds it.
pub fn map<T: Real, const N: usize>(f: impl Map<T, N>, want: Want, ins: [&[T]; N], out: &mut [T]) {
    map_pieces(CHUNK, |_| f, want, ins, out);
}

/// The same for pieces of `size` elements, each piece i with its own function `f(i)`.
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

/// [`map`] on one thread, for all elements of `out`.
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
            // A loop, because a closure would be compiled without the instruction set.
            let mut x = [T::Lanes::<I>::zero(); N];
            for n in 0..N {
                x[n] = load::<I, T>(self.ins[n], i);
            }
            store_wanted::<I, T>(self.want, self.f.at::<I>(x), self.out, i);
        }
    }
}

/// The elements of a gradient, none if it is not wanted.
pub fn wanted<T: Element>(want: Want, gradient: &mut Buffer) -> &mut [T] {
    if want.is_wanted() { gradient.as_mut_slice() } else { &mut [] }
}

/// Columns that one task sums.
pub const COLUMNS: usize = 128;

/// Sums columns, each on one thread: `add(first, sums)` adds the columns from `first` on.
pub fn sum_columns<T: Real>(want: Want, sums: &mut [T], add: impl Fn(usize, &mut [T]) + Sync + Send) {
    parallel::chunks(sums, COLUMNS, |c, sums| {
        if want == Want::Write {
            sums.fill(T::ZERO);
        }
        add(c * COLUMNS, sums);
    });
}

/// Sums the rows of `x` in order.
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
