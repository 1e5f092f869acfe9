//! The sum of two tensors: the residual stream.

mod cpu;

use crate::case::{Case, Input, Sizes};
use crate::launch::{args, over};
use crate::{check, cost};
use engine::cuda::Module;
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("add", include_str!("kernel.cu"));

/// `a [..], b [..] → y [..]`. Memory-bound.
///
/// - Formula: `y = a + b`
/// - VJP: `d_a = d_b = d_y`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Add;

impl Op for Add {
    check::names!("add": a, b);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::is("b", ins[1], check::real("a", ins[0])?, ins[0].shape.dims())?;
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return over(&**gpu, &outs[0], &KERNELS, "add", args![ins[0], ins[1], &outs[0], outs[0].len()]);
        }
        with_real!(ins[0].dtype(), T => cpu::forward::<T>(ins[0].as_slice(), ins[1].as_slice(), outs[0].as_mut_slice()))
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        for (&want, d_in) in wants.iter().zip(d) {
            pass_on(cx.device, want, d_y, d_in);
        }
    }

    fn passes_through(&self, _i: usize) -> bool {
        true
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        cost::of(self, ins, pass, ins[0].shape.numel(), &[0, 0])
    }
}

/// Copies or adds a gradient unchanged; on a GPU this op's kernels must be loaded.
pub fn pass_on(device: &Device, want: Want, d_out: &Buffer, d_in: &mut Buffer) {
    match device {
        _ if !want.is_wanted() => {}
        Device::Cuda(_) if want == Want::Write => d_in.copy_from(d_out),
        Device::Cuda(gpu) => over(&**gpu, d_in, &KERNELS, "add", args![&*d_in, d_out, &*d_in, d_in.len()]),
        Device::Cpu(_) => {
            with_real!(d_out.dtype(), T => cpu::pass_on::<T>(want, d_out.as_slice(), d_in.as_mut_slice()))
        }
    }
}

/// One case: the residual stream `[B, N, d]`.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let input = || Input::normal(&[s.batch, s.tokens, s.dim()]);
    vec![Case::new("residual", Add, vec![input(), input()])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check_all;

    #[test]
    fn matches_the_formula() {
        check_all(cases, &[], |_, _, x| x[0].iter().zip(&x[1]).map(|(a, b)| a + b).collect());
    }
}
