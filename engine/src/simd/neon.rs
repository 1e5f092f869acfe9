//! NEON, which every 64-bit Arm processor has.

use super::group::{Group, Register};
use super::{Isa, Level};
use std::arch::aarch64::*;

/// Advanced SIMD.
#[derive(Clone, Copy)]
pub struct Neon;

impl Isa for Neon {
    type F32 = Group<float32x4_t, 4>;
    type F64 = Group<float64x2_t, 8>;
    const LEVEL: Level = Level::Neon;
    const REGISTERS: usize = 32;
}

/// One `Register`, from its intrinsics. The machine's own maximum prefers NaN, so that compare and select give what
/// `Lanes` promises: the second operand unless the comparison holds.
macro_rules! register {
    ($register:ident of $width:literal $t:ident: $splat:ident $load:ident $store:ident $add:ident $sub:ident $mul:ident
     $div:ident $greater:ident $less:ident $select:ident $sqrt:ident $fma:ident;
     $to_bits:ident $shift:ident<$by:literal> $from_bits:ident; $zip1:ident $zip2:ident) => {
        // SAFETY of every block below: NEON is part of the base of the aarch64 targets that std supports.
        impl Register<$t> for $register {
            const WIDTH: usize = $width;

            #[inline(always)]
            fn splat(x: $t) -> Self {
                // SAFETY: as above.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            unsafe fn load(x: *const $t) -> Self {
                // SAFETY: as above, and the caller's promise.
                unsafe { $load(x) }
            }

            #[inline(always)]
            unsafe fn store(self, out: *mut $t) {
                // SAFETY: as above, and the caller's promise.
                unsafe { $store(out, self) }
            }

            #[inline(always)]
            fn add(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $add(self, b) }
            }

            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $sub(self, b) }
            }

            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $mul(self, b) }
            }

            #[inline(always)]
            fn div(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $div(self, b) }
            }

            #[inline(always)]
            fn max(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $select($greater(self, b), self, b) }
            }

            #[inline(always)]
            fn min(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $select($less(self, b), self, b) }
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                // SAFETY: as above.
                unsafe { $sqrt(self) }
            }

            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: as above.
                unsafe { $fma(c, self, b) }
            }

            #[inline(always)]
            fn mantissa_to_exponent(self) -> Self {
                // SAFETY: as above.
                unsafe { $from_bits($shift::<$by>($to_bits(self))) }
            }

            #[inline(always)]
            fn interleave(self, b: Self) -> [Self; 2] {
                // SAFETY: as above.
                unsafe { [$zip1(self, b), $zip2(self, b)] }
            }
        }
    };
}

register!(float32x4_t of 4 f32: vdupq_n_f32 vld1q_f32 vst1q_f32 vaddq_f32 vsubq_f32 vmulq_f32 vdivq_f32 vcgtq_f32
    vcltq_f32 vbslq_f32 vsqrtq_f32 vfmaq_f32; vreinterpretq_u32_f32 vshlq_n_u32<23> vreinterpretq_f32_u32; vzip1q_f32 vzip2q_f32);

register!(float64x2_t of 2 f64: vdupq_n_f64 vld1q_f64 vst1q_f64 vaddq_f64 vsubq_f64 vmulq_f64 vdivq_f64 vcgtq_f64
    vcltq_f64 vbslq_f64 vsqrtq_f64 vfmaq_f64; vreinterpretq_u64_f64 vshlq_n_u64<52> vreinterpretq_f64_u64; vzip1q_f64 vzip2q_f64);
