//! AVX2 with FMA, and AVX-512.

use super::group::{Group, Register, functions, register};
use super::{Isa, Kernel, LANES};
use std::arch::asm;
use std::arch::x86_64::*;

/// AVX-512 with the extensions that every server and desktop processor with AVX-512 has.
#[derive(Clone, Copy)]
pub struct Avx512;

impl Isa for Avx512 {
    type F32 = Group<__m512, 1>;
    type F64 = Group<__m512d, 2>;
    const REGISTERS: usize = 32;
}

impl Avx512 {
    pub fn is_available() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && Avx2::is_available()
    }

    /// # Safety
    /// [`Avx512::is_available`].
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi2")]
    pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }
}

/// [`Avx512`] with conversion to bf16, which rounds, flushes and treats NaN as [`round`](super::round) does.
#[derive(Clone, Copy)]
pub struct Narrowing;

impl Isa for Narrowing {
    type F32 = Group<__m512, 1>;
    type F64 = Group<__m512d, 2>;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn narrow(low: Self::F32, high: Self::F32) -> Self::F32 {
        // SAFETY: these lanes exist only in kernels that `run` was called with. Both types are 64 bytes of plain numbers.
        Group([unsafe { std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high.0[0], low.0[0])) }])
    }

    #[inline(always)]
    fn pair(even: Self::F32, odd: Self::F32) -> Self::F32 {
        let Group([halves]) = Self::narrow(even, odd);
        // SAFETY: as above.
        Group([unsafe { interleave_halves(halves) }])
    }
}

impl Narrowing {
    /// # Safety
    /// [`Avx512::is_available`], and the processor has AVX512-BF16.
    #[target_feature(enable = "avx512bf16,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi2")]
    pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }
}

/// Number i of the first sixteen 16-bit numbers, then number i of the last sixteen.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleave_halves(x: __m512) -> __m512 {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: the order has 64 bytes, at any alignment.
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, _mm512_castps_si512(x)))
}

/// Until it is dropped, this thread's vector instructions take subnormal operands as zeros and flush subnormal results. The
/// compiler assumes that they do not. So nothing may compute with numbers that it knows: everything between comes from
/// memory that it must read after `begin`, and goes to memory before the drop, which the two assembly blocks ensure.
pub struct Flushing {
    before: u32,
}

/// Flush to zero, and denormals are zeros.
const FLUSH: u32 = 1 << 15 | 1 << 6;

impl Flushing {
    pub fn begin() -> Self {
        let mut before = 0_u32;
        // SAFETY: writes four bytes.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut before, options(nostack, preserves_flags)) };
        Self::set(before | FLUSH);
        Self { before }
    }

    fn set(state: u32) {
        // SAFETY: reads four bytes. The state is one of the processor's, with at most two more bits that all with AVX have.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &state, options(nostack, preserves_flags)) };
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        Self::set(self.before);
    }
}

/// AVX2 and FMA.
#[derive(Clone, Copy)]
pub struct Avx2;

impl Isa for Avx2 {
    type F32 = Group<__m256, 2>;
    type F64 = Group<__m256d, 4>;
    const REGISTERS: usize = 16;
}

impl Avx2 {
    pub fn is_available() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("bmi2")
    }

    /// # Safety
    /// [`Avx2::is_available`].
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn interleave_512(a: __m512, b: __m512) -> [__m512; 2] {
    let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    [_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn interleave_512d(a: __m512d, b: __m512d) -> [__m512d; 2] {
    let low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    let high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    [_mm512_permutex2var_pd(a, low, b), _mm512_permutex2var_pd(a, high, b)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn interleave_256(a: __m256, b: __m256) -> [__m256; 2] {
    // First within each half of the registers, then across halves.
    let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn interleave_256d(a: __m256d, b: __m256d) -> [__m256d; 2] {
    let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
    [_mm256_permute2f128_pd::<0x20>(low, high), _mm256_permute2f128_pd::<0x31>(low, high)]
}

/// Needs half the shuffles of [`interleave_256`] rounds, most of them within halves of registers: first pairs of rows,
/// then groups of four, then across halves.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_256(block: &mut [__m256; LANES]) {
    let mut fours = [[block[0]; 4]; 2];
    for half in 0..2 {
        let rows: &[__m256] = &block[4 * half..][..4];
        let (low, low_next) = (_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpacklo_ps(rows[2], rows[3]));
        let (high, high_next) = (_mm256_unpackhi_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[2], rows[3]));
        fours[half] = [
            _mm256_shuffle_ps::<0x44>(low, low_next),
            _mm256_shuffle_ps::<0xEE>(low, low_next),
            _mm256_shuffle_ps::<0x44>(high, high_next),
            _mm256_shuffle_ps::<0xEE>(high, high_next),
        ];
    }
    for i in 0..4 {
        block[i] = _mm256_permute2f128_ps::<0x20>(fours[0][i], fours[1][i]);
        block[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[0][i], fours[1][i]);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn select_512(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
    _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), no, yes)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn select_512d(a: __m512d, b: __m512d, yes: __m512d, no: __m512d) -> __m512d {
    _mm512_mask_blend_pd(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(a, b), no, yes)
}

#[inline]
#[target_feature(enable = "avx2")]
fn select_256(a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
    _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn select_256d(a: __m256d, b: __m256d, yes: __m256d, no: __m256d) -> __m256d {
    _mm256_blendv_pd(no, yes, _mm256_cmp_pd::<_CMP_GT_OQ>(a, b))
}

// The processor's `max` and `min` return the second operand unless the comparison holds, as `Lanes` specifies.

register!(__m512, f32, 16: _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps,
    _mm512_div_ps, _mm512_max_ps, _mm512_min_ps, _mm512_sqrt_ps, _mm512_fmadd_ps, select_512,
    [_mm512_castps_si512, _mm512_slli_epi32::<23>, _mm512_srli_epi32::<23>, _mm512_or_si512, _mm512_castsi512_ps],
    interleave_512);

register!(__m512d, f64, 8: _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, _mm512_add_pd, _mm512_sub_pd, _mm512_mul_pd,
    _mm512_div_pd, _mm512_max_pd, _mm512_min_pd, _mm512_sqrt_pd, _mm512_fmadd_pd, select_512d,
    [_mm512_castpd_si512, _mm512_slli_epi64::<52>, _mm512_srli_epi64::<52>, _mm512_or_si512, _mm512_castsi512_pd],
    interleave_512d);

register!(__m256, f32, 8: _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps,
    _mm256_div_ps, _mm256_max_ps, _mm256_min_ps, _mm256_sqrt_ps, _mm256_fmadd_ps, select_256,
    [_mm256_castps_si256, _mm256_slli_epi32::<23>, _mm256_srli_epi32::<23>, _mm256_or_si256, _mm256_castsi256_ps],
    interleave_256, transpose_256);

register!(__m256d, f64, 4: _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, _mm256_add_pd, _mm256_sub_pd, _mm256_mul_pd,
    _mm256_div_pd, _mm256_max_pd, _mm256_min_pd, _mm256_sqrt_pd, _mm256_fmadd_pd, select_256d,
    [_mm256_castpd_si256, _mm256_slli_epi64::<52>, _mm256_srli_epi64::<52>, _mm256_or_si256, _mm256_castsi256_pd],
    interleave_256d);
