//! SwiGLU, a gated hidden layer. One product gives `u₁ = W₁x` and `u₃ = W₃x` side by side.

mod cpu;

use crate::case::{Case, Input, Sizes};
use crate::launch::{args, over};
use crate::{check, cost};
use engine::cuda::Module;
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("swiglu", include_str!("kernel.cu"));

/// `u [.., 2f] → y [.., f]`, with `u₁ = u[.., ..f]` and `u₃ = u[.., f..]`.
///
/// - Formula: `y = silu(u₁) ⊙ u₃`, `silu(u) = u / (1 + e⁻ᵘ)`
/// - VJP: with `s = 1/(1 + e⁻ᵘ¹)`: `d_u1 = d_y ⊙ u₃ ⊙ s(1 + u₁(1 − s))`, `d_u3 = d_y ⊙ u₁s`
/// - Source: Shazeer, "GLU variants improve transformer", arXiv 2002.05202
///
/// Memory-bound: the exponential costs no extra time, so the VJP recomputes s.
#[derive(Clone, Copy, Debug)]
pub struct SwiGlu;

impl Op for SwiGlu {
    check::names!("swiglu": u);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("u", ins[0])?;
        let width = ins[0].shape.last();
        check::that(ins[0].shape.rank() > 0 && width > 0 && width.is_multiple_of(2), || {
            format!("u is {}, its rows must be two halves of equal width", ins[0])
        })?;
        Ok(vec![Output { name: "y", spec: Spec { dtype, shape: ins[0].shape.with_last(width / 2) } }])
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[0], &[])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let f = outs[0].shape().last();
        if let Device::Cuda(gpu) = cx.device {
            return over(&**gpu, &outs[0], &KERNELS, "forward", args![ins[0], &outs[0], outs[0].len(), f]);
        }
        with_real!(ins[0].dtype(), T => cpu::forward::<T>(f, ins[0].as_slice(), outs[0].as_mut_slice()))
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let f = d_y.shape().last();
        if let Device::Cuda(gpu) = cx.device {
            return over(&**gpu, d_y, &KERNELS, "backward", args![ins[0], d_y, wants[0], &d[0], d_y.len(), f]);
        }
        with_real!(d_y.dtype(), T => {
            cpu::vjp::<T>(f, wants[0], ins[0].as_slice(), d_y.as_slice(), d[0].as_mut_slice());
        });
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let n = ins[0].shape.numel() / 2;
        cost::of(self, ins, pass, 5 * n, &[12 * n])
    }
}

/// One case: the hidden layer `[B, N, 2f]`.
pub fn cases(s: &Sizes) -> Vec<Case> {
    vec![Case::new("hidden", SwiGlu, vec![Input::normal(&[s.batch, s.tokens, 2 * s.ffn])])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, forward, refuses, vjp};

    #[test]
    fn matches_the_formula() {
        let silu = |u: f64| u * (0.5 + 0.5 * (0.5 * u).tanh());
        check_all(cases, &[], |s, _, x| {
            let gated = |row: &[f64]| (0..s.ffn).map(|i| silu(row[i]) * row[s.ffn + i]).collect::<Vec<_>>();
            x[0].chunks(2 * s.ffn).flat_map(gated).collect()
        });
    }

    #[test]
    fn saturates_without_nan() {
        let u = [Buffer::from_slice(&[1, 4], &[-1e4f32, 1e4, 3.0, 3.0])];
        let y = forward(&SwiGlu, &u);
        assert_eq!(y[0].as_slice::<f32>(), [0.0, 3e4]);
        let d_y = Buffer::from_slice(&[1, 2], &[1.0f32, 1.0]);
        let d_u = vjp(&SwiGlu, &[Want::Write], &u, &y, &d_y);
        assert_eq!(d_u[0].as_slice::<f32>(), [0.0, 3.0, 0.0, 1e4]);
    }

    #[test]
    fn halves_must_be_equal() {
        refuses(&SwiGlu, "f32[2, 5]", "u is f32[2, 5], its rows must be two halves of equal width");
    }
}
