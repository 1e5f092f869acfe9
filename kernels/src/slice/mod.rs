//! Selects one layer's latents from those of all layers.

mod cpu;

use crate::case::{Case, Input, Sizes};
use crate::launch::{args, elements};
use crate::{check, cost};
use engine::cuda::{Gpu, Module};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Result, Shape, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("slice", include_str!("kernel.cu"));

/// `x [B, S, d] → y [B, len, d]`. Memory-bound.
///
/// - Formula: `y = x[:, start..start+len, :]`
/// - VJP: `d_x` is `d_y` in those rows and zero elsewhere
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// First row.
    pub start: usize,
    /// Number of rows.
    pub len: usize,
}

impl Op for Slice {
    check::names!("slice": x);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("x", ins[0])?;
        check::rank("x", ins[0], 3)?;
        let &[b, s, d] = ins[0].shape.dims() else { unreachable!("three dimensions") };
        let (start, end) = (self.start, self.start + self.len);
        check::that(start < end && end <= s, || {
            format!("x has {s} rows, rows {start}..{end} must be at least one and among them")
        })?;
        Ok(vec![Output { name: "y", spec: Spec::new(dtype, &[b, self.len, d]) }])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let part = self.part(ins[0].shape());
        if let Device::Cuda(gpu) = cx.device {
            return launch(&**gpu, part, "slice", ins[0], &outs[0], outs[0].len());
        }
        with_real!(ins[0].dtype(), T => cpu::forward::<T>(part, ins[0].as_slice(), outs[0].as_mut_slice()))
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let part = self.part(d[0].shape());
        if let Device::Cuda(gpu) = cx.device {
            return match wants[0] {
                Want::Skip => {}
                Want::Write => launch(&**gpu, part, "put", d_y, &d[0], d[0].len()),
                Want::Add => launch(&**gpu, part, "add", d_y, &d[0], d_y.len()),
            };
        }
        with_real!(d_y.dtype(), T => {
            cpu::vjp::<T>(part, wants[0], d_y.as_slice(), d[0].as_mut_slice());
        });
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let n = ins[0].shape.dims()[0] * self.len * ins[0].shape.last();
        match pass {
            // Only the rows of the slice are read; adding the gradient changes no others.
            Pass::Forward => Cost { flops: 0, bytes: (2 * n * ins[0].dtype.size()) as u64 },
            Pass::Vjp([Want::Add]) => Cost { flops: n as u64, bytes: (3 * n * ins[0].dtype.size()) as u64 },
            Pass::Vjp(_) | Pass::Fused(_) => cost::of(self, ins, pass, 0, &[0]),
        }
    }
}

impl Slice {
    /// In elements: the size of a sample of `x`, and the offset and length of the slice in it.
    fn part(&self, x: Shape) -> [usize; 3] {
        [x.dims()[1], self.start, self.len].map(|rows| rows * x.last())
    }
}

/// A kernel over `n` elements.
fn launch(gpu: &dyn Gpu, part: [usize; 3], entry: &'static str, from: &Buffer, to: &Buffer, n: usize) {
    let [sample, start, len] = part;
    let args = args![from, to, n, from.shape().last(), sample, start, len];
    gpu.launch(&KERNELS.kernel(entry, from.dtype()), elements(n, from.dtype()), args);
}

/// The first and the last layer's latents of two layers.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let x = || Input::normal(&[s.batch, 2 * s.latents, s.dim()]);
    let case = |label, start| Case::new(label, Slice { start, len: s.latents }, vec![x()]);
    vec![case("first layer", 0), case("last layer", s.latents)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, refuses};

    #[test]
    fn matches_the_formula() {
        check_all(cases, &[], |s, layer, x| {
            let size = s.latents * s.dim();
            x[0].chunks(2 * size).flat_map(|sample| sample[layer * size..][..size].to_vec()).collect()
        });
    }

    #[test]
    fn rows_must_exist() {
        let refused = |start, len, message: &str| refuses(&Slice { start, len }, "f32[2, 5, 3]", message);
        refused(4, 2, "x has 5 rows, rows 4..6 must be at least one and among them");
        refused(1, 0, "x has 5 rows, rows 1..1 must be at least one and among them");
        refuses(&Slice { start: 0, len: 1 }, "f32[2, 5]", "x is f32[2, 5], must have 3 dimensions");
        assert!(Slice { start: 3, len: 2 }.infer(&[Spec::new(engine::DType::F32, &[2, 5, 3])]).is_ok());
    }
}
