//! The sum of two tensors: the residual stream.

mod cpu;
pub(crate) mod cuda;

use crate::case::{Case, Fill, Input, Sizes};
use crate::{check, cost, lanes};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `a [..], b [..] → y [..]`. Bound by memory.
///
/// - Formula: `y = a + b`
/// - VJP: `d_a = d_b = d_y`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["a", "b"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        check::is("b", ins[1], check::real("a", ins[0])?, ins[0].shape.dims())?;
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::default()
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, ins[0], ins[1], &mut outs[0]);
        }
        with_real!(ins[0].dtype(), T => cpu::forward::<T>(ins[0].as_slice(), ins[1].as_slice(), outs[0].as_mut_slice()))
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        _: &[&Buffer],
        _: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        for (&want, d_in) in wants.iter().zip(d_ins).filter(|(want, _)| want.is_wanted()) {
            match cx.device {
                Device::Cuda(gpu) => cuda::pass_on(&**gpu, want, d_out, d_in),
                Device::Cpu => {
                    with_real!(d_out.dtype(), T => lanes::pass_on::<T>(want, d_out.as_slice(), d_in.as_mut_slice()));
                }
            }
        }
    }

    fn passes_through(&self, _i: usize) -> bool {
        true
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (n, bytes) = (ins[0].shape.numel(), ins[0].bytes());
        let forward = Cost { flops: n as u64, bytes: 3 * bytes as u64 };
        cost::of_pass(pass, forward, |wants| {
            let stores: Cost = wants.iter().map(|&want| cost::store(want, n, bytes)).sum();
            let read = if wants.iter().any(|want| want.is_wanted()) { bytes as u64 } else { 0 };
            stores + Cost { flops: 0, bytes: read }
        })
    }
}

/// One case: the residual stream `[B, N, d]`.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let input = || Input::new(&[s.batch, s.tokens, s.dim()], Fill::NORMAL);
    vec![Case::new("residual", Add, vec![input(), input()])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use engine::DType;

    #[test]
    fn matches_the_formula() {
        for case in testing::sizes().iter().flat_map(cases) {
            testing::check(&case, |x| x[0].iter().zip(&x[1]).map(|(a, b)| a + b).collect());
        }
    }

    #[test]
    fn shapes_must_agree() {
        let (a, b) = (Spec::new(DType::F32, &[2, 3]), Spec::new(DType::F32, &[3, 2]));
        assert_eq!(Add.infer(&[a, b]).unwrap_err().to_string(), "b is f32[3, 2], must be f32[2, 3]");
        assert!(Add.infer(&[a]).unwrap_err().to_string().contains("takes 2 inputs (a, b), got 1"));
    }
}
