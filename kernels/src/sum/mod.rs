//! All elements to one number, for losses that are sums.

mod cpu;
pub(crate) mod cuda;

use crate::case::{Case, Fill, Input, Sizes};
use crate::check;
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

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

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::default()
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let partial = cx.scratch_at(DType::F32, cuda::partials(ins[0].len()));
            return cuda::forward(&**gpu, ins[0], &mut outs[0], partial);
        }
        with_real!(ins[0].dtype(), T => cpu::forward::<T>(ins[0].as_slice(), outs[0].as_mut_slice()))
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
        if !wants[0].is_wanted() {
            return;
        }
        if let Device::Cuda(gpu) = cx.device {
            return cuda::vjp(&**gpu, d_out, wants[0], &mut d_ins[0]);
        }
        with_real!(d_out.dtype(), T => cpu::vjp::<T>(d_out.as_slice()[0], wants[0], d_ins[0].as_mut_slice()));
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        match (device, pass) {
            (Device::Cuda(_), Pass::Forward) => cuda::partials(ins[0].shape.numel()) * DType::F32.size(),
            _ => 0,
        }
    }

    fn cost(&self, ins: &[Spec], _pass: Pass) -> Cost {
        Cost { flops: ins[0].shape.numel() as u64, bytes: ins[0].bytes() as u64 }
    }
}

/// One case: a sum over all latents.
pub fn cases(s: &Sizes) -> Vec<Case> {
    vec![Case::new("all", Sum, vec![Input::new(&[s.batch, s.latents, s.dim()], Fill::NORMAL)])]
}
