//! Rounding to bf16, and how a bf16 matrix is stored for products.

use super::{LANES, Lanes};
use half::bf16;

/// Rows and columns of a [`Block`].
pub const SIDE: usize = 32;

/// A 32×32 block of a bf16 matrix as two tiles, one after the other, each of sixteen rows of sixteen pairs.
pub type Block = [bf16; SIDE * SIDE];

/// The nearest bf16, to even; a zero of the same sign for a subnormal number; NaN for NaN.
#[inline(always)]
pub fn round(x: f32) -> bf16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
    let magnitude = bits & 0x7FFF_FFFF;
    let bits = match magnitude {
        0x7F80_0001.. => bits | 0x0040_0000,
        0..0x0080_0000 => bits & 0x8000_0000,
        _ => nearest,
    };
    bf16::from_bits((bits >> 16) as u16)
}

/// [`Isa::narrow`](super::Isa::narrow) on any instruction set.
#[inline(always)]
pub(super) fn narrow<F: Lanes<f32>>(low: F, high: F) -> F {
    let (low, high) = (low.to_array(), high.to_array());
    let mut all = [bf16::ZERO; 2 * LANES];
    for i in 0..LANES {
        all[i] = round(low[i]);
        all[LANES + i] = round(high[i]);
    }
    F::load(&bytemuck::cast::<_, [f32; LANES]>(all))
}

/// [`Isa::pair`](super::Isa::pair) on any instruction set.
#[inline(always)]
pub(super) fn pair<F: Lanes<f32>>(even: F, odd: F) -> F {
    let (even, odd) = (even.to_array(), odd.to_array());
    let mut all = [0.0; LANES];
    for i in 0..LANES {
        all[i] = f32::from_bits(u32::from(round(even[i]).to_bits()) | u32::from(round(odd[i]).to_bits()) << 16);
    }
    F::load(&all)
}

/// Writes sixteen words as pairs.
#[inline(always)]
pub fn store_words<F: Lanes<f32>>(words: F, out: &mut [bf16; 2 * LANES]) {
    *out = bytemuck::cast(words.to_array());
}

/// Reads sixteen words, which are pairs.
#[inline(always)]
pub fn load_words<F: Lanes<f32>>(pairs: &[bf16; 2 * LANES]) -> F {
    F::load(&bytemuck::cast::<_, [f32; LANES]>(*pairs))
}
