//! Converts numbers to another float type, such as an f32 weight to bf16.

mod cpu;

use crate::launch::{THREADS, args};
use crate::{check, cost};
use engine::cuda::{Gpu, Grid, Module, Pointer};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Result, Spec, Want};

pub(crate) static KERNELS: Module = Module::new("cast", include_str!("kernel.cu"));

/// `x [..] → y [..]`. Memory-bound.
///
/// - Formula: `y` is `x`, each number rounded to the nearest of type `to`, ties to even
/// - VJP: `d_x` is `d_y`, rounded to the type of `x`: rounding counts as the identity
/// - Source: IEEE 754, roundTiesToEven; the gradient is that of mixed precision (Micikevicius et al., arXiv 1710.03740)
/// - Check: rounding has no derivative to compare with; all bits are compared with the CPU's, there and back
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// Element type of the result.
    pub to: DType,
}

impl Op for Cast {
    check::names!("cast": x);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::real("x", ins[0])?;
        check::that(self.to.is_float(), || format!("x cannot become {}, must become floats", self.to))?;
        Ok(vec![Output { name: "y", spec: Spec { dtype: self.to, ..ins[0] } }])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        convert(cx, ins[0], Want::Write, &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        convert(cx, d_y, wants[0], &mut d[0]);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        cost::of(self, ins, pass, 0, &[0])
    }
}

fn convert(cx: &Context, from: &Buffer, want: Want, to: &mut Buffer) {
    match cx.device {
        Device::Cuda(gpu) => launch(&**gpu, from.into(), want, to.pointer(), from.len()),
        Device::Cpu(_) => cpu::convert(from, want, to),
    }
}

/// Converts `n` numbers on a GPU.
pub(crate) fn launch(gpu: &dyn Gpu, from: Pointer, want: Want, to: Pointer, n: usize) {
    let entry = match to.dtype {
        DType::F32 => "to_f32",
        DType::Bf16 => "to_bf16",
        other => panic!("a device does not support {other}"),
    };
    // Eight numbers per thread.
    gpu.launch(&KERNELS.kernel(entry, from.dtype), Grid::covering(n.div_ceil(8), THREADS), args![from, want, to, n]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{forward, refuses, vjp};

    const FLOATS: [DType; 3] = [DType::F32, DType::F64, DType::Bf16];

    /// Every pair of types: numbers that both represent are unchanged, and gradients flow back.
    #[test]
    fn exact_numbers_pass() {
        let x: Vec<f64> = (0..20_000).map(|i| f64::from(i % 257) - 100.0).collect();
        for (from, to) in FLOATS.into_iter().flat_map(|from| FLOATS.map(|to| (from, to))) {
            let x = Buffer::from_f64(from, &[2, 10_000], &x);
            let y = forward(&Cast { to }, &[&x]);
            assert_eq!((y[0].dtype(), y[0].to_f64()), (to, x.to_f64()));
            let d_x = vjp(&Cast { to }, &[Want::Write], &[&x], &y, &y[0]);
            assert_eq!((d_x[0].dtype(), d_x[0].to_f64()), (from, x.to_f64()));
            let d_x = vjp(&Cast { to }, &[Want::Add], &[&x], &y, &y[0]);
            let sum = |x: &f64| Buffer::from_f64(from, &[1], &[1.0 + x]).to_f64()[0];
            assert_eq!(d_x[0].to_f64(), x.to_f64().iter().map(sum).collect::<Vec<_>>());
        }
    }

    #[test]
    fn rounds_to_the_nearest() {
        let x = Buffer::from_slice(&[4], &[1.0f32 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -0.1, 1e-40]);
        let y = forward(&Cast { to: DType::Bf16 }, &[&x]).remove(0).to_f64();
        assert_eq!(y[..2], [1.0, 1.0 + 4.0 / 256.0]);
        assert!((y[2] + 0.1).abs() < 0.1 / 256.0 && (y[3] / 1e-40 - 1.0).abs() < 0.1, "{y:?}");
    }

    #[test]
    fn integers_are_refused() {
        refuses(&Cast { to: DType::F32 }, "i32[3]", "x is i32[3], must hold floats");
        refuses(&Cast { to: DType::I32 }, "f32[3]", "x cannot become i32, must become floats");
    }
}
