//! The portable version and specification of all others: a register is one number.

use super::group::{Group, Register, exp, functions, ln, register};
use super::{Isa, LANES, Real};
use std::ops::{Add, Div, Mul, Sub};

/// No vector instructions: runs everywhere. Slow if the target has no fused multiply-add: the standard library then
/// computes it in software, with the same bits.
#[derive(Clone, Copy)]
pub struct Scalar;

impl Isa for Scalar {
    type F32 = Group<f32, LANES>;
    type F64 = Group<f64, LANES>;
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
            fn ln(self) -> Self {
                ln::<Self, Self>(self)
            }

            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if self > other { self } else { other }
            }

            #[inline(always)]
            fn min(self, other: Self) -> Self {
                if self < other { self } else { other }
            }
        }

        register!($t, $t, 1: std::convert::identity, <*const $t>::read_unaligned, <*mut $t>::write_unaligned, Add::add,
            Sub::sub, Mul::mul, Div::div, Real::max, Real::min, $t::sqrt, $t::mul_add,
            |a, b, yes, no| if a > b { yes } else { no },
            [$t::to_bits, |bits| bits << ($t::MANTISSA_DIGITS - 1), |bits| bits >> ($t::MANTISSA_DIGITS - 1),
                std::ops::BitOr::bitor, $t::from_bits], |a, b| [a, b]);
    };
}

real!(f32, F32);
real!(f64, F64);
