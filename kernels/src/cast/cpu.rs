use crate::lanes::CHUNK;
use engine::{Buffer, DType, Element, Want, parallel};
use half::bf16;

/// A float by way of f64, which holds every number of the others.
trait Float: Element {
    fn to_f64(self) -> f64;
    fn from_f64(x: f64) -> Self;
}

impl Float for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(x: f64) -> Self {
        x as Self
    }
}

impl Float for f64 {
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(x: f64) -> Self {
        x
    }
}

impl Float for bf16 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn from_f64(x: f64) -> Self {
        // By way of f32, as a GPU does it; half's own way from f64 does not look at the last bits.
        Self::from_f32(x as f32)
    }
}

pub fn convert(from: &Buffer, want: Want, to: &mut Buffer) {
    match from.dtype() {
        DType::F32 => convert_from::<f32>(from.as_slice(), want, to),
        DType::F64 => convert_from::<f64>(from.as_slice(), want, to),
        DType::Bf16 => convert_from::<bf16>(from.as_slice(), want, to),
        DType::I32 => unreachable!("floats"),
    }
}

fn convert_from<A: Float>(from: &[A], want: Want, to: &mut Buffer) {
    match to.dtype() {
        DType::F32 => convert_to::<A, f32>(from, want, to.as_mut_slice()),
        DType::F64 => convert_to::<A, f64>(from, want, to.as_mut_slice()),
        DType::Bf16 => convert_to::<A, bf16>(from, want, to.as_mut_slice()),
        DType::I32 => unreachable!("floats"),
    }
}

fn convert_to<A: Float, B: Float>(from: &[A], want: Want, to: &mut [B]) {
    parallel::chunks(to, CHUNK, |c, to| {
        for (to, from) in to.iter_mut().zip(&from[c * CHUNK..]) {
            let old = if want == Want::Add { to.to_f64() } else { 0.0 };
            *to = B::from_f64(old + from.to_f64());
        }
    });
}
