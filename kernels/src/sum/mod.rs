//! The sum of all elements, for losses.

use crate::case::{Case, Input, Sizes};
use crate::launch::{PER_BLOCK, THREADS, args, over};
use crate::{check, cost};
use engine::cuda::{Grid, Module};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("sum", include_str!("kernel.cu"));

/// `x [..] → y [1]`.
///
/// - Formula: `y = Σ x`
/// - VJP: `d_x = d_y` everywhere
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Sum;

impl Op for Sum {
    check::names!("sum": x);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        Ok(vec![Output { name: "y", spec: Spec::new(check::real("x", ins[0])?, &[1]) }])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let (x, blocks) = (ins[0], ins[0].len().div_ceil(PER_BLOCK));
            let (kernel, partial) = (|entry| KERNELS.kernel(entry, x.dtype()), cx.scratch_at(DType::F32, blocks));
            gpu.launch(&kernel("sum_blocks"), Grid::new(blocks, THREADS), args![x, partial, x.len(), PER_BLOCK]);
            return gpu.launch(&kernel("sum_partials"), Grid::new(1, 1024), args![partial, blocks, &outs[0]]);
        }
        with_real!(ins[0].dtype(), T => {
            let mut total = T::default();
            ins[0].as_slice::<T>().iter().for_each(|&x| total += x);
            outs[0].as_mut_slice()[0] = total;
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return over(&**gpu, &d[0], &KERNELS, "spread", args![d_y, wants[0], &d[0], d[0].len()]);
        }
        with_real!(d_y.dtype(), T => {
            let (d_y, d_x) = (d_y.as_slice::<T>()[0], d[0].as_mut_slice::<T>());
            match wants[0] {
                Want::Skip => {}
                Want::Write => d_x.fill(d_y),
                Want::Add => d_x.iter_mut().for_each(|d| *d += d_y),
            }
        });
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        match (device, pass) {
            (Device::Cuda(_), Pass::Forward) => ins[0].shape.numel().div_ceil(PER_BLOCK) * DType::F32.size(),
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
