//! The definition of the bf16 product, in plain Rust: it does not rely on the processor's flushing of subnormals.

use engine::simd::{Block, SIDE};
use half::bf16;

/// `c` += the sum over the blocks of a·b; the blocks as [`super::pack`] lays them out.
pub fn add(a: &[Block], b: &[Block], c: &mut [[f32; SIDE]; SIDE]) {
    for (a, b) in a.iter().zip(b) {
        for (i, c) in c.iter_mut().enumerate() {
            for (j, c) in c.iter_mut().enumerate() {
                let (mut even, mut odd) = (0.0, 0.0);
                for p in 0..SIDE / 2 {
                    let at = [i * SIDE + 2 * p, (j / 16 * 16 + p) * SIDE + j % 16 * 2];
                    even = mul_add(a[at[0]], b[at[1]], even);
                    odd = mul_add(a[at[0] + 1], b[at[1] + 1], odd);
                }
                *c = flush(flush(*c) + flush(even + odd));
            }
        }
    }
}

/// A zero of the same sign if `x` is subnormal. A sum that is subnormal is exact, so only its size decides.
pub(super) fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

/// a·b + c, rounded once, and then a zero if it is smaller than the smallest normal number. This is decided with all 24
/// bits: a result that reaches that number only because subnormal numbers have fewer bits is still a zero. Neither factor is
/// subnormal, nor is `c`.
pub(super) fn mul_add(a: bf16, b: bf16, c: f32) -> f32 {
    let (a, b) = (a.to_f32(), b.to_f32());
    let sum = a.mul_add(b, c);
    if sum.abs() > f32::MIN_POSITIVE || sum.is_nan() {
        return sum;
    }
    // Exactly 2⁶⁴ times as large, with all bits: c is small if the sum is, and so is one factor.
    const SCALE: f32 = (1_u128 << 64) as f32;
    let large = if a.abs() < b.abs() { (a * SCALE).mul_add(b, c * SCALE) } else { a.mul_add(b * SCALE, c * SCALE) };
    if large == 0.0 || large.abs() >= f32::MIN_POSITIVE * SCALE { sum } else { 0.0_f32.copysign(large) }
}
