//! The sum of all elements, for losses.

mod cpu;
pub(crate) mod cuda;

use crate::case::{Case, Input, Sizes};
use crate::{check, cost};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Result, Spec, Want, with_real};

/// `x [..] → y [1]`.
///
/// - Formula: `y = Σ x`
/// - VJP: `d_x = d_y` everywhere
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Sum;

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        Ok(vec![Output { name: "y", spec: Spec::new(check::real("x", ins[0])?, &[1]) }])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let partial = cx.scratch_at(DType::F32, cuda::partials(ins[0].len()));
            return cuda::forward(&**gpu, ins[0], &outs[0], partial);
        }
        with_real!(ins[0].dtype(), T => cpu::forward::<T>(ins[0].as_slice(), outs[0].as_mut_slice()))
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return cuda::vjp(&**gpu, d_y, wants[0], &d[0]);
        }
        with_real!(d_y.dtype(), T => cpu::vjp::<T>(d_y.as_slice()[0], wants[0], d[0].as_mut_slice()));
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        match (device, pass) {
            (Device::Cuda(_), Pass::Forward) => cuda::partials(ins[0].shape.numel()) * DType::F32.size(),
            _ => 0,
        }
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        cost::of(self, ins, pass, ins[0].shape.numel(), &[0])
    }
}

/// One case: a sum over all latents.
pub fn cases(s: &Sizes) -> Vec<Case> {
    vec![Case::new("all", Sum, vec![Input::normal(&[s.batch, s.latents, s.dim()])])]
}
