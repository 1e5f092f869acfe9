//! Sum, mean and maximum, of all elements or over one axis. As a view, x is `[outer, n, inner]`, and the axis is the middle.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

pub(crate) use cuda::KERNELS;

use self::cpu::{Maxima, View};
use crate::case::{Case, Input, Sizes};
use crate::lanes::split;
use crate::{check, cost};
use engine::simd::Real;
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Shape, Spec, Want, with_real};

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The sum.
    Sum,
    /// The sum over the number of elements.
    Mean,
    /// The largest.
    Max,
}

/// `x [.., n, ..] → y [.., ..]`: sum, mean or maximum over one axis, which the result lacks; over all elements, or over the
/// axis of a vector, `y [1]`. A maximum has a residual `index` of y's shape, i32: the place on the axis.
///
/// - Formula: `y = Σₖ xₖ`, `y = Σₖ xₖ / n` or `y = maxₖ xₖ` over the n elements of the axis
/// - VJP: `d_xₖ = d_y`, `d_xₖ = d_y / n`, or `d_y` where k is the place of the maximum and zero elsewhere
/// - Source: elementary
///
/// A NaN is larger than any number. Among equal ones the first is the maximum, and it alone gets the gradient (as in PyTorch's
/// `max` over a dimension; `amax` divides it among them). A sum has a fixed order, which depends only on the sizes. Memory-bound.
///
/// ```
/// use engine::{Eager, Buffer, Device};
/// use kernels::reduce::Reduce;
///
/// let x = [Buffer::from_slice(&[2, 3], &[1.0f32, 2.0, 6.0, -1.0, 5.0, 5.0])];
/// let of = |op: Reduce| Eager { device: &Device::CPU, op: &op }.forward(&x).iter().map(Buffer::to_f64).collect::<Vec<_>>();
/// assert_eq!(of(Reduce::sum()), [[18.0]]);
/// assert_eq!(of(Reduce::mean_axis(1)), [[3.0, 3.0]]);
/// // The values, and their places.
/// assert_eq!(of(Reduce::max_axis(1)), [[6.0, 5.0], [2.0, 1.0]]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// Sum, mean or maximum.
    pub how: How,
    /// The axis, counted from the outermost; `None` for all elements.
    pub axis: Option<usize>,
}

impl Reduce {
    /// The sum of all elements.
    pub const fn sum() -> Self {
        Self { how: How::Sum, axis: None }
    }

    /// The sum over an axis.
    pub const fn sum_axis(axis: usize) -> Self {
        Self { how: How::Sum, axis: Some(axis) }
    }

    /// The mean of all elements.
    pub const fn mean() -> Self {
        Self { how: How::Mean, axis: None }
    }

    /// The mean over an axis.
    pub const fn mean_axis(axis: usize) -> Self {
        Self { how: How::Mean, axis: Some(axis) }
    }

    /// The largest of all elements.
    pub const fn max() -> Self {
        Self { how: How::Max, axis: None }
    }

    /// The largest along an axis.
    pub const fn max_axis(axis: usize) -> Self {
        Self { how: How::Max, axis: Some(axis) }
    }

    fn view(self, x: Shape) -> View {
        let dims = x.dims();
        match self.axis {
            None => View { outer: 1, n: x.numel(), inner: 1 },
            Some(axis) => {
                View { outer: dims[..axis].iter().product(), n: dims[axis], inner: dims[axis + 1..].iter().product() }
            }
        }
    }

    /// The factor of the sum.
    fn scale(self, view: View) -> f64 {
        if self.how == How::Mean { 1.0 / view.n as f64 } else { 1.0 }
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.how {
            How::Sum => "sum",
            How::Mean => "mean",
            How::Max => "max",
        }
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let (x, dtype) = (ins[0], check::real("x", ins[0])?);
        check::that(x.shape.numel() > 0, || format!("x is {x}, must have elements"))?;
        let dims = match self.axis {
            Some(axis) => {
                check::that(axis < x.shape.rank(), || format!("x is {x}, must have an axis {axis}, counted from 0"))?;
                [&x.shape.dims()[..axis], &x.shape.dims()[axis + 1..]].concat()
            }
            None => vec![],
        };
        let dims = if dims.is_empty() { vec![1] } else { dims };
        let y = Output { name: "y", spec: Spec::new(dtype, &dims) };
        if self.how != How::Max {
            return Ok(vec![y]);
        }
        let n = self.view(x.shape).n;
        check::that(i32::try_from(n).is_ok(), || format!("x is {x}, must have fewer than 2³¹ elements on the axis"))?;
        Ok(vec![y, Output { name: "index", spec: Spec::new(DType::I32, &dims) }])
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        if self.how == How::Max { Reads::of(&[], &[1]) } else { Reads::default() }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let view = self.view(ins[0].shape());
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(cx, &**gpu, view, self.scale(view), ins[0], outs);
        }
        with_real!(ins[0].dtype(), T => {
            let (x, n) = (ins[0].as_slice::<T>(), view.partials());
            match outs {
                [y] => cpu::sum(view, T::from_f64(self.scale(view)), x, cx.scratch(n), y.as_mut_slice()),
                [y, index] => {
                    let [values, places] = split(cx.scratch::<T>(2 * n), [n, n]);
                    // An index is no larger than a float.
                    let places = &mut bytemuck::cast_slice_mut(places)[..n];
                    let out = Maxima { y: y.as_mut_slice(), index: index.as_mut_slice() };
                    cpu::max(view, x, Maxima { y: values, index: places }, out);
                }
                _ => unreachable!("one or two outputs"),
            }
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let (view, want) = (self.view(d[0].shape()), wants[0]);
        if let Device::Cuda(gpu) = cx.device {
            return match self.how {
                How::Max => cuda::place(&**gpu, view, want, outs[1], d_y, &d[0]),
                _ => cuda::spread(&**gpu, view, self.scale(view), want, d_y, &d[0]),
            };
        }
        with_real!(d_y.dtype(), T => {
            let (d_y, d_x) = (d_y.as_slice::<T>(), d[0].as_mut_slice());
            match self.how {
                How::Max => cpu::place(view, want, outs[1].as_slice(), d_y, d_x),
                _ => cpu::spread(view, T::from_f64(self.scale(view)), want, d_y, d_x),
            }
        });
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        let view = self.view(ins[0].shape);
        match (device, pass) {
            (Device::Cuda(_), Pass::Forward) => cuda::scratch(view) * DType::F32.size(),
            (Device::Cpu(_), Pass::Forward) => 2 * view.partials() * ins[0].dtype.size(),
            (_, Pass::Vjp(_) | Pass::Fused(_)) => 0,
        }
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (view, n) = (self.view(ins[0].shape), ins[0].shape.numel());
        let results = view.results();
        match (self.how, pass) {
            // Only the numbers at the maxima change.
            (How::Max, Pass::Vjp([Want::Add])) => {
                let bytes = results * (3 * ins[0].dtype.size() + DType::I32.size());
                Cost { flops: results as u64, bytes: bytes as u64 }
            }
            (How::Mean, _) => cost::of(self, ins, pass, n + results, &[results]),
            _ => cost::of(self, ins, pass, n, &[0]),
        }
    }
}

/// Over the tokens, over the last axis and over all; and of a matrix that all samples share.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let hidden = || vec![Input::normal(&[s.batch, s.tokens, s.dim()])];
    let matrix = || vec![Input::normal(&[s.tokens, s.dim()])];
    vec![
        Case::new("tokens", Reduce::sum_axis(1), hidden()),
        Case::new("last axis", Reduce::sum_axis(2), hidden()),
        Case::new("all", Reduce::sum(), hidden()),
        Case::new("tokens", Reduce::mean_axis(1), hidden()),
        Case::new("all", Reduce::mean(), matrix()),
        Case::new("tokens", Reduce::max_axis(1), hidden()),
        Case::new("last axis", Reduce::max_axis(2), hidden()),
        Case::new("all", Reduce::max(), matrix()),
    ]
}
