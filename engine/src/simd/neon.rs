//! NEON, which every 64-bit Arm processor has.

use super::Isa;
use super::group::{Group, Register, functions, register};
use std::arch::aarch64::*;

/// Advanced SIMD.
#[derive(Clone, Copy)]
pub struct Neon;

impl Isa for Neon {
    type F32 = Group<float32x4_t, 4>;
    type F64 = Group<float64x2_t, 8>;
    const REGISTERS: usize = 32;
}

// The processor's own maximum prefers NaN. Compare and select return the second operand unless the comparison holds, as
// `Lanes` specifies. Closures are safe here: NEON is part of every aarch64 target that has the standard library.

register!(float32x4_t, f32, 4: vdupq_n_f32, vld1q_f32, vst1q_f32, vaddq_f32, vsubq_f32, vmulq_f32, vdivq_f32,
    |a, b| vbslq_f32(vcgtq_f32(a, b), a, b), |a, b| vbslq_f32(vcltq_f32(a, b), a, b), vsqrtq_f32,
    |a, b, c| vfmaq_f32(c, a, b), |a, b, yes, no| vbslq_f32(vcgtq_f32(a, b), yes, no),
    [vreinterpretq_u32_f32, vshlq_n_u32::<23>, vshrq_n_u32::<23>, vorrq_u32, vreinterpretq_f32_u32],
    |a, b| [vzip1q_f32(a, b), vzip2q_f32(a, b)]);

register!(float64x2_t, f64, 2: vdupq_n_f64, vld1q_f64, vst1q_f64, vaddq_f64, vsubq_f64, vmulq_f64, vdivq_f64,
    |a, b| vbslq_f64(vcgtq_f64(a, b), a, b), |a, b| vbslq_f64(vcltq_f64(a, b), a, b), vsqrtq_f64,
    |a, b, c| vfmaq_f64(c, a, b), |a, b, yes, no| vbslq_f64(vcgtq_f64(a, b), yes, no),
    [vreinterpretq_u64_f64, vshlq_n_u64::<52>, vshrq_n_u64::<52>, vorrq_u64, vreinterpretq_f64_u64],
    |a, b| [vzip1q_f64(a, b), vzip2q_f64(a, b)]);
