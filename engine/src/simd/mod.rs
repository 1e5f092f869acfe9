//! The only CPU intrinsics of the project, and the two traits of every CPU kernel.
//!
//! A kernel is written once, with [`Lanes`]: sixteen numbers side by side on every machine. Sixteen f32 are one
//! register on AVX-512, two on AVX2 and four on NEON; the portable [`Scalar`] version keeps an array. The number of
//! lanes is fixed, so every reduction has one order. Every instruction set has a fused multiply-add and rounds the
//! other operations correctly. Therefore **all levels give the same bits** (a NaN is a NaN everywhere, but its payload
//! may differ). The scalar version is the specification, and tests compare the others with it.
//!
//! The first [`dispatch`] detects the instruction set. It calls [`Kernel::run`] inside a function that is compiled for that
//! set:
//!
//! ```
//! use engine::simd::{self, Isa, Kernel, Lanes, Real};
//!
//! /// y[i] = exp(x[i]), in place.
//! struct Exp<'a, T>(&'a mut [T]);
//!
//! impl<T: Real> Kernel for Exp<'_, T> {
//!     type Output = ();
//!
//!     #[inline(always)]
//!     fn run<I: Isa>(self) {
//!         let (body, tail) = self.0.as_chunks_mut::<{ simd::LANES }>();
//!         for x in body {
//!             T::Lanes::<I>::load(x).exp().store(x);
//!         }
//!         T::Lanes::<I>::load_partial(tail, T::ZERO).exp().store_partial(tail);
//!     }
//! }
//!
//! let mut x = [0.0f32; 19];
//! simd::dispatch(Exp(&mut x));
//! assert_eq!(x, [1.0; 19]);
//! ```
//!
//! Four rules keep a kernel fast. Breaking one turns every operation into a call and makes the kernel up to a hundred
//! times slower.
//! - `run` and every function that touches lanes is `#[inline(always)]`, so that its body is compiled into the function
//!   with the instruction set.
//! - Use plain loops, not closures (nor `array::map`), on lanes: a closure may be compiled on its own, without the
//!   instruction set.
//! - Therefore put parallel loops and `scratch` outside, and call `dispatch` inside their closures.
//! - One `dispatch` covers many rows, because nothing inlines through it.

#[cfg(target_arch = "x86_64")]
mod amx;
mod bf16;
mod group;
mod level;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod slices;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
pub use amx::Amx;
pub use bf16::{Block, SIDE, load_words, round, store_words};
pub use level::{
    Level, VARIABLE, dispatch, dispatch_flushing, dispatch_narrowing, for_each_level, level, level_from_env, supported,
};
pub use scalar::Scalar;
pub use slices::{axpy, dot, max, sum, sum_squares};

use crate::Element;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// Numbers in one [`Lanes`], on every instruction set.
pub const LANES: usize = 16;

/// An instruction set: the types of its sixteen lanes. Only [`dispatch`] provides one, on a processor that has it, and
/// only [`Scalar`] can be named outside. So the lanes are safe to use.
pub trait Isa: Copy + Send + Sync + 'static {
    /// Sixteen f32.
    type F32: Lanes<f32>;
    /// Sixteen f64.
    type F64: Lanes<f64>;
    /// Vector registers that a kernel can use.
    const REGISTERS: usize;

    /// Thirty-two numbers, `low` and then `high`, rounded to bf16 by [`round`]. Each lane of the result is a pair of
    /// neighbours as one word, the first in the lower half.
    #[inline(always)]
    fn narrow(low: Self::F32, high: Self::F32) -> Self::F32 {
        bf16::narrow(low, high)
    }

    /// Lane i of the result is the pair of `even[i]` and `odd[i]`, rounded as by [`narrow`](Self::narrow).
    #[inline(always)]
    fn pair(even: Self::F32, odd: Self::F32) -> Self::F32 {
        bf16::pair(even, odd)
    }
}

/// Work that is generic over the instruction set. The arguments are its fields.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// Does the work with the lanes of `I`; mark it `#[inline(always)]`.
    fn run<I: Isa>(self) -> Self::Output;
}

/// f32 or f64: the storage and arithmetic of the CPU. Its methods give the same bits as one lane of the methods of
/// [`Lanes`] with the same name.
pub trait Real:
    Element
    + PartialOrd
    + Default
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
{
    /// Sixteen of them on instruction set `I`.
    type Lanes<I: Isa>: Lanes<Self>;
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// −∞.
    const NEG_INFINITY: Self;
    /// The nearest number of this type.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// `self·b + c`, rounded once.
    #[must_use]
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// √self.
    #[must_use]
    fn sqrt(self) -> Self;
    /// eˣ; see [`Lanes::exp`].
    #[must_use]
    fn exp(self) -> Self;
    /// ln self; see [`Lanes::ln`].
    #[must_use]
    fn ln(self) -> Self;
    /// `self > other ? self : other`; see [`Lanes::max`].
    #[must_use]
    fn max(self, other: Self) -> Self;
    /// `self < other ? self : other`; see [`Lanes::min`].
    #[must_use]
    fn min(self, other: Self) -> Self;
}

/// Sixteen numbers side by side. Every method acts lane by lane and gives the same bits on every instruction set.
pub trait Lanes<T: Real>: Copy + Send + Sync {
    /// Vector registers that hold the sixteen.
    const REGISTERS: usize;

    /// `x` in all sixteen lanes.
    fn splat(x: T) -> Self;
    /// The first sixteen of `x`, which must not have fewer.
    fn load(x: &[T]) -> Self;
    /// Overwrites the first sixteen of `out`, which must not have fewer.
    fn store(self, out: &mut [T]);
    /// `self + b`.
    #[must_use]
    fn add(self, b: Self) -> Self;
    /// `self − b`.
    #[must_use]
    fn sub(self, b: Self) -> Self;
    /// `self · b`.
    #[must_use]
    fn mul(self, b: Self) -> Self;
    /// `self / b`.
    #[must_use]
    fn div(self, b: Self) -> Self;
    /// `self > b ? self : b`; `b` if either is NaN.
    #[must_use]
    fn max(self, b: Self) -> Self;
    /// `self < b ? self : b`; `b` if either is NaN.
    #[must_use]
    fn min(self, b: Self) -> Self;
    /// `self > b ? yes : no`; `no` if either is NaN.
    #[must_use]
    fn select(self, b: Self, yes: Self, no: Self) -> Self;
    /// √self.
    #[must_use]
    fn sqrt(self) -> Self;
    /// `−self`.
    #[must_use]
    fn neg(self) -> Self;
    /// `self · b + c`, rounded once.
    #[must_use]
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// eˣ: f32 to within one unit in the last place, down through the subnormal numbers; f64 to within 10⁻¹⁵ of it. 0 below
    /// the smallest number and at −∞, ∞ above the largest, NaN for NaN.
    #[must_use]
    fn exp(self) -> Self;
    /// ln self, to within two units in the last place, also of subnormal numbers. −∞ for both zeros, ∞ for ∞, NaN for NaN and
    /// below zero.
    #[must_use]
    fn ln(self) -> Self;
    /// Lane i of row j becomes lane j of row i.
    #[must_use]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES];

    /// Sixteen zeros.
    #[inline(always)]
    fn zero() -> Self {
        Self::splat(T::ZERO)
    }

    /// `x` (at most sixteen numbers), filled up with `fill`.
    #[inline(always)]
    fn load_partial(x: &[T], fill: T) -> Self {
        let mut all = [fill; LANES];
        all[..x.len()].copy_from_slice(x);
        Self::load(&all)
    }

    /// Overwrites the first eight elements of `out`, which must not have fewer, with the first eight lanes.
    #[inline(always)]
    fn store_half(self, out: &mut [T]) {
        self.store_partial(&mut out[..LANES / 2]);
    }

    /// Overwrites `out` (at most sixteen numbers) with as many lanes.
    #[inline(always)]
    fn store_partial(self, out: &mut [T]) {
        out.copy_from_slice(&self.to_array()[..out.len()]);
    }

    /// The lanes in order.
    #[inline(always)]
    fn to_array(self) -> [T; LANES] {
        let mut all = [T::ZERO; LANES];
        self.store(&mut all);
        all
    }

    /// The sum of the lanes: i with i+8, then i+4, i+2, i+1.
    #[inline(always)]
    fn sum(self) -> T {
        let mut x = self.to_array();
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] += x[i + half];
            }
        }
        x[0]
    }

    /// The largest lane, by [`Real::max`] over the tree of [`Lanes::sum`]. If a lane is NaN, the result may be any lane.
    #[inline(always)]
    fn max_lane(self) -> T {
        let mut x = self.to_array();
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] = Real::max(x[i], x[i + half]);
            }
        }
        x[0]
    }
}

/// Prefetches the cache lines of `x` into L2. Affects only speed.
#[inline(always)]
pub fn prefetch<T>(x: &[T]) {
    #[cfg(target_arch = "x86_64")]
    if let [first, .., last] = x {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let first = std::ptr::from_ref(first).cast::<i8>();
        for byte in (0..size_of_val(x)).step_by(64) {
            // SAFETY: a prefetch reads nothing, and the address lies inside `x`.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(first.add(byte)) };
        }
        // If `x` begins inside a line, it may end in one more line. SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(last).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
}
