//! The Gaussian error linear unit in the tanh form that GPT-2 has (Hendrycks and Gimpel, arXiv 1606.08415):
//! `y = ½u (1 + tanh(√(2/π) (u + 0.044715 u³)))`, which is `u · sigmoid(a(u))` with `a = 2√(2/π) (u + 0.044715 u³)`.

mod cpu;
pub(crate) mod cuda;

use crate::case::{Case, Fill, Input, Sizes};
use crate::{check, cost};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

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
/// The VJP computes s again: bound by memory, the exponential hides behind it.
#[derive(Clone, Copy, Debug)]
pub struct Gelu;

impl Op for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["u"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        check::real("u", ins[0])?;
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        if wants[0].is_wanted() { Reads::of(&[0], &[]) } else { Reads::default() }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, ins[0], &mut outs[0]);
        }
        with_real!(ins[0].dtype(), T => cpu::forward::<T>(ins[0].as_slice(), outs[0].as_mut_slice()))
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        _outs: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        if !wants[0].is_wanted() {
            return;
        }
        if let Device::Cuda(gpu) = cx.device {
            return cuda::vjp(&**gpu, wants[0], ins[0], d_out, &mut d_ins[0]);
        }
        with_real!(d_out.dtype(), T => {
            cpu::vjp::<T>(wants[0], ins[0].as_slice(), d_out.as_slice(), d_ins[0].as_mut_slice());
        });
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (n, bytes) = (ins[0].shape.numel(), ins[0].bytes());
        let forward = Cost { flops: 7 * n as u64, bytes: 2 * bytes as u64 };
        cost::of_pass(pass, forward, |wants| match wants[0] {
            Want::Skip => Cost::default(),
            want => Cost { flops: 16 * n as u64, bytes: 2 * bytes as u64 } + cost::store(want, n, bytes),
        })
    }
}

/// One case: the hidden layer `[B, N, f]`.
pub fn cases(s: &Sizes) -> Vec<Case> {
    vec![Case::new("hidden", Gelu, vec![Input::new(&[s.batch, s.tokens, s.ffn], Fill::NORMAL)])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use engine::DType;

    #[test]
    fn matches_the_formula() {
        let c = (2.0 / std::f64::consts::PI).sqrt();
        for case in testing::sizes().iter().flat_map(cases) {
            testing::check(&case, |x| {
                x[0].iter().map(|u| 0.5 * u * (1.0 + (c * (u + 0.044715 * u.powi(3))).tanh())).collect()
            });
        }
    }

    #[test]
    fn saturates_without_nan() {
        let u = Buffer::from_slice(&[4], &[-1e4f32, 1e4, 0.0, -30.0]);
        let y = testing::forward(&Gelu, &[&u]);
        assert_eq!(y[0].as_slice::<f32>(), [0.0, 1e4, 0.0, 0.0]);
        let d_y = Buffer::from_slice(&[4], &[1.0f32; 4]);
        let d_u = testing::vjp(&Gelu, &[Want::Write], &[&u], &y, &d_y);
        assert_eq!(d_u[0].as_slice::<f32>(), [0.0, 1.0, 0.5, 0.0]);
    }

    #[test]
    fn takes_floats() {
        let error = Gelu.infer(&[Spec::new(DType::I32, &[2, 4])]).unwrap_err().to_string();
        assert_eq!(error, "u is i32[2, 4], must hold floats");
    }
}
