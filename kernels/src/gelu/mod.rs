//! The Gaussian error linear unit in GPT-2's tanh form, `½u (1 + tanh(√(2/π) (u + 0.044715 u³)))`.

mod cpu;

use crate::case::{Case, Input, Sizes};
use crate::lanes::map;
use crate::launch::{args, over};
use crate::{check, cost};
use engine::cuda::Module;
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("gelu", include_str!("kernel.cu"));

/// 2√(2/π), the factor of u in a(u).
const LINEAR: f64 = 1.595_769_121_605_730_7;
/// 2√(2/π) · 0.044715, the factor of u³.
const CUBIC: f64 = LINEAR * 0.044_715;

/// `u [..] → y [..]`.
///
/// - Formula: `y = u·s` with `s = 1/(1 + e⁻ᵃ)`, `a = 2√(2/π)(u + 0.044715 u³)`
/// - VJP: `d_u = d_y ⊙ (s + u·s(1 − s)·a′)`
/// - Source: Hendrycks and Gimpel, arXiv 1606.08415
///
/// Memory-bound: the exponential costs no extra time, so the VJP recomputes s.
#[derive(Clone, Copy, Debug)]
pub struct Gelu;

impl Op for Gelu {
    check::names!("gelu": u);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::real("u", ins[0])?;
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[0], &[])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return over(&**gpu, &outs[0], &KERNELS, "forward", args![ins[0], &outs[0], outs[0].len()]);
        }
        with_real!(ins[0].dtype(), T => map::<T, 1>(cpu::Forward, Want::Write, [ins[0].as_slice()], outs[0].as_mut_slice()))
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return over(&**gpu, d_y, &KERNELS, "backward", args![ins[0], d_y, wants[0], &d[0], d_y.len()]);
        }
        with_real!(d_y.dtype(), T => {
            map::<T, 2>(cpu::Backward, wants[0], [ins[0].as_slice(), d_y.as_slice()], d[0].as_mut_slice());
        });
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let n = ins[0].shape.numel();
        cost::of(self, ins, pass, 7 * n, &[16 * n])
    }
}

/// One case: the hidden layer `[B, N, f]`.
pub fn cases(s: &Sizes) -> Vec<Case> {
    vec![Case::new("hidden", Gelu, vec![Input::normal(&[s.batch, s.tokens, s.ffn])])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, forward, vjp};

    #[test]
    fn matches_the_formula() {
        let c = (2.0 / std::f64::consts::PI).sqrt();
        let gelu = |u: &f64| 0.5 * u * (1.0 + (c * (u + 0.044715 * u.powi(3))).tanh());
        check_all(cases, &[], |_, _, x| x[0].iter().map(gelu).collect());
    }

    #[test]
    fn saturates_without_nan() {
        let u = [Buffer::from_slice(&[4], &[-1e4f32, 1e4, 0.0, -30.0])];
        let y = forward(&Gelu, &u);
        assert_eq!(y[0].as_slice::<f32>(), [0.0, 1e4, 0.0, 0.0]);
        let d_y = Buffer::from_slice(&[4], &[1.0f32; 4]);
        let d_u = vjp(&Gelu, &[Want::Write], &u, &y, &d_y);
        assert_eq!(d_u[0].as_slice::<f32>(), [0.0, 1.0, 0.5, 0.0]);
    }
}
