//! The portable version and specification of all others: a register is one number.

use super::group::{Group, Register, exp};
use super::{Isa, LANES, Level, Real};

/// No vector instructions: runs everywhere. Slow where the target has no fused multiply-add, which the standard library
/// then computes in software, with the same bits.
#[derive(Clone, Copy)]
pub struct Scalar;

impl Isa for Scalar {
    type F32 = Group<f32, LANES>;
    type F64 = Group<f64, LANES>;
    const LEVEL: Level = Level::Scalar;
    const REGISTERS: usize = 16;
}

macro_rules! real {
    ($t:ident, $lanes:ident) => {
        impl Real for $t {
            type Lanes<I: Isa> = I::$lanes;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = $t::NEG_INFINITY;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }

            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                $t::mul_add(self, b, c)
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }

            #[inline(always)]
            fn exp(self) -> Self {
                exp::<Self, Self>(self)
            }

            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if self > other { self } else { other }
            }

            #[inline(always)]
            fn min(self, other: Self) -> Self {
                if self < other { self } else { other }
            }

            #[inline(always)]
            fn is_finite(self) -> bool {
                $t::is_finite(self)
            }
        }

        impl Register<$t> for $t {
            const WIDTH: usize = 1;

            #[inline(always)]
            fn splat(x: $t) -> Self {
                x
            }

            #[inline(always)]
            unsafe fn load(x: *const $t) -> Self {
                // SAFETY: the caller's promise.
                unsafe { x.read_unaligned() }
            }

            #[inline(always)]
            unsafe fn store(self, out: *mut $t) {
                // SAFETY: the caller's promise.
                unsafe { out.write_unaligned(self) }
            }

            #[inline(always)]
            fn add(self, b: Self) -> Self {
                self + b
            }

            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                self - b
            }

            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                self * b
            }

            #[inline(always)]
            fn div(self, b: Self) -> Self {
                self / b
            }

            #[inline(always)]
            fn max(self, b: Self) -> Self {
                Real::max(self, b)
            }

            #[inline(always)]
            fn min(self, b: Self) -> Self {
                Real::min(self, b)
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }

            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                $t::mul_add(self, b, c)
            }

            #[inline(always)]
            fn mantissa_to_exponent(self) -> Self {
                $t::from_bits(self.to_bits() << ($t::MANTISSA_DIGITS - 1))
            }

            #[inline(always)]
            fn interleave(self, b: Self) -> [Self; 2] {
                [self, b]
            }
        }
    };
}

real!(f32, F32);
real!(f64, F64);
