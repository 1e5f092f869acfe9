//! Parts of an axis: a slice, zeros around a tensor, several tensors joined. Their gradients are each other: that of a slice
//! is padded, and those of a padded tensor and of joined tensors are slices.

mod concat;
mod cpu;

pub use concat::Concat;

use crate::case::{Case, Input, Sizes};
use crate::launch::{args, elements};
use crate::{check, cost};
use engine::cuda::{Gpu, Module};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Result, Shape, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("slice", include_str!("kernel.cu"));

/// `x [.., n, ..] → y [.., len, ..]`. Memory-bound.
///
/// - Formula: `y[.., i, ..] = x[.., start + i, ..]` on the axis
/// - VJP: `d_x` is `d_y` at those places and zero elsewhere
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// The axis, 0 for the outermost.
    pub axis: usize,
    /// The first index.
    pub start: usize,
    /// How many, at least one.
    pub len: usize,
}

impl Op for Slice {
    check::names!("slice": x);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let Self { axis, start, len } = *self;
        let end = start.saturating_add(len);
        let n = size("x", ins[0], axis)?;
        check::that(len > 0 && end <= n, || {
            format!("x is {}, must contain {start}..{end} on axis {axis}, at least one index", ins[0])
        })?;
        Ok(vec![Output { name: "y", spec: resized(ins[0], axis, len) }])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        self.part(ins[0].shape()).take(cx, Want::Write, ins[0], &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        self.part(d[0].shape()).put(cx, wants[0], d_y, &mut d[0]);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let y = resized(ins[0], self.axis, self.len);
        match pass {
            // Only the slice is read; adding the gradient changes nothing else.
            Pass::Forward => moved(y, Want::Write),
            Pass::Vjp([Want::Add]) => moved(y, Want::Add),
            Pass::Vjp(_) | Pass::Fused(_) => cost::of(self, ins, pass, 0, &[0]),
        }
    }
}

impl Slice {
    fn part(&self, x: Shape) -> Part {
        Part::of(x, self.axis, self.start, self.len)
    }
}

/// `x [.., n, ..] → y [.., before + n + after, ..]`. Memory-bound.
///
/// - Formula: `y[.., before + i, ..] = x[.., i, ..]` on the axis, and zero elsewhere
/// - VJP: `d_x` is the slice of `d_y`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Pad {
    /// The axis, 0 for the outermost.
    pub axis: usize,
    /// Zeros before `x`.
    pub before: usize,
    /// Zeros after `x`.
    pub after: usize,
}

impl Op for Pad {
    check::names!("pad": x);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let n = size("x", ins[0], self.axis)?;
        Ok(vec![Output { name: "y", spec: resized(ins[0], self.axis, self.before + n + self.after) }])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        self.part(outs[0].shape()).put(cx, Want::Write, ins[0], &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        self.part(d_y.shape()).take(cx, wants[0], d_y, &mut d[0]);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        match pass {
            Pass::Vjp([want]) => moved(ins[0], *want),
            _ => cost::of(self, ins, pass, 0, &[0]),
        }
    }
}

impl Pad {
    fn part(&self, y: Shape) -> Part {
        Part::of(y, self.axis, self.before, y.dims()[self.axis] - self.before - self.after)
    }
}

/// The size of an argument of floats on an axis that it must have.
fn size(name: &str, got: Spec, axis: usize) -> Result<usize> {
    check::real(name, got)?;
    check::that(axis < got.shape.rank(), || format!("{name} is {got}, must have an axis {axis}"))?;
    Ok(got.shape.dims()[axis])
}

/// The same with another size on one axis.
fn resized(spec: Spec, axis: usize, size: usize) -> Spec {
    let mut dims = spec.shape.dims().to_vec();
    dims[axis] = size;
    Spec::new(spec.dtype, &dims)
}

/// The cost of copying or adding these numbers.
fn moved(numbers: Spec, want: Want) -> Cost {
    let bytes = numbers.bytes() as u64;
    match want {
        Want::Skip => Cost::default(),
        Want::Write => Cost { flops: 0, bytes: 2 * bytes },
        Want::Add => Cost { flops: numbers.shape.numel() as u64, bytes: 3 * bytes },
    }
}

/// A part of an axis, in elements. An index of the outer axes is a row: it has `whole` elements in the larger tensor, of which
/// the `len` from `start` on are the smaller tensor's.
#[derive(Clone, Copy, Debug)]
struct Part {
    whole: usize,
    start: usize,
    len: usize,
}

impl Part {
    /// The part from `start` on, with `len` indices, of an axis of the larger tensor.
    fn of(larger: Shape, axis: usize, start: usize, len: usize) -> Self {
        let inner: usize = larger.dims()[axis + 1..].iter().product();
        Self { whole: larger.dims()[axis] * inner, start: start * inner, len: len * inner }
    }

    /// Writes or adds the part of the larger tensor to the smaller one.
    fn take(self, cx: &Context, want: Want, from: &Buffer, to: &mut Buffer) {
        match cx.device {
            Device::Cuda(gpu) => self.launch(&**gpu, "take", from, to, to.len(), Some(want)),
            Device::Cpu(_) => {
                with_real!(from.dtype(), T => cpu::take::<T>(self, want, from.as_slice(), to.as_mut_slice()));
            }
        }
    }

    /// Writes the smaller tensor into the larger one, which is zero elsewhere; or adds it.
    fn put(self, cx: &Context, want: Want, from: &Buffer, to: &mut Buffer) {
        match (cx.device, want) {
            (Device::Cuda(gpu), Want::Write) => self.launch(&**gpu, "pad", from, to, to.len(), None),
            (Device::Cuda(gpu), _) => self.launch(&**gpu, "put", from, to, from.len(), Some(want)),
            (Device::Cpu(_), _) => {
                with_real!(from.dtype(), T => cpu::put::<T>(self, want, from.as_slice(), to.as_mut_slice()));
            }
        }
    }

    /// A kernel over `n` elements; all but `pad` have a want.
    fn launch(self, gpu: &dyn Gpu, entry: &'static str, from: &Buffer, to: &Buffer, n: usize, want: Option<Want>) {
        let Self { whole, start, len } = self;
        // A pack has a power of two elements, so it divides all three sizes if it divides this.
        let wide = whole | start | len;
        let args = args![from, to, n, wide, whole, start, len, want.unwrap_or(Want::Write)];
        let args = if want.is_some() { args } else { &args[..7] };
        gpu.launch(&KERNELS.kernel(entry, from.dtype()), elements(n, from.dtype()), args);
    }
}

/// One layer's latents from those of two; the queries of fused projections; zeros around tokens and rows; a prefix before
/// tokens, and features side by side.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let (tokens, latents, d) = (s.tokens, s.latents, s.dim());
    let x = |n, width| Input::normal(&[s.batch, n, width]);
    let layer = |label, start| Case::new(label, Slice { axis: 1, start, len: latents }, vec![x(2 * latents, d)]);
    let join = |label, axis, sizes: &[usize], ins| Case::new(label, Concat { axis, sizes: sizes.to_vec() }, ins);
    vec![
        layer("first layer", 0),
        layer("last layer", latents),
        Case::new("middle columns", Slice { axis: 2, start: d, len: d }, vec![x(tokens, 3 * d)]),
        Case::new("rows", Pad { axis: 1, before: 2, after: 1 }, vec![x(tokens, d)]),
        Case::new("column", Pad { axis: 2, before: 0, after: 1 }, vec![x(tokens, s.ffn)]),
        join("prefix", 1, &[latents, tokens], vec![x(latents, d), x(tokens, d)]),
        join("features", 2, &[d, 1, s.ffn], vec![x(tokens, d), x(tokens, 1), x(tokens, s.ffn)]),
    ]
}

#[cfg(test)]
mod tests;
