use crate::lanes::CHUNK;
use engine::{Buffer, DType, Element, Want, parallel};
use half::bf16;

/// Converts through f64, which represents every number of the other types.
pub fn convert(from: &Buffer, want: Want, to: &mut Buffer) {
    match from.dtype() {
        DType::F32 => convert_from::<f32>(from.as_slice(), want, to),
        DType::F64 => convert_from::<f64>(from.as_slice(), want, to),
        DType::Bf16 => convert_from::<bf16>(from.as_slice(), want, to),
        DType::I32 => unreachable!("floats"),
    }
}

fn convert_from<A: Element + Into<f64>>(from: &[A], want: Want, to: &mut Buffer) {
    match to.dtype() {
        DType::F32 => store(from, want, to.as_mut_slice(), |x| x as f32),
        DType::F64 => store(from, want, to.as_mut_slice(), |x| x),
        // Through f32, as on a GPU, because the crate `half` ignores the last bits when it converts from f64.
        DType::Bf16 => store(from, want, to.as_mut_slice(), |x| bf16::from_f32(x as f32)),
        DType::I32 => unreachable!("floats"),
    }
}

fn store<A, B>(from: &[A], want: Want, to: &mut [B], round: impl Fn(f64) -> B + Send + Sync)
where
    A: Element + Into<f64>,
    B: Element + Into<f64>,
{
    parallel::chunks(to, CHUNK, |c, to| {
        for (to, &from) in to.iter_mut().zip(&from[c * CHUNK..]) {
            let old = if want == Want::Add { (*to).into() } else { 0.0 };
            *to = round(old + from.into());
        }
    });
}
