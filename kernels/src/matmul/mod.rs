//! Linear maps: `y = x·wᵀ`, alone and added to a residual stream, on one matrix product.
//!
//! Weights are stored `[out, in]`, the rows of `x` are all but its last dimension. Every element of a product is one chain of fused multiply-adds in the order of the
//! summed index, on one thread: a row of `y` or `d_x` has the same bits whatever the other rows are, and `d_w`, which
//! sums over the rows, has the same bits on any number of threads.
//!
//! A product of more than a few dozen rows is bound by arithmetic, one of fewer by reading `w`.

mod cpu;
pub(crate) mod cuda;
pub(crate) mod forms;
pub mod gemm;
mod microkernel;
mod pack;
#[allow(unsafe_code)]
pub(crate) mod tiles;

use self::forms::Use;
use self::gemm::Accumulate;
use crate::case::{Case, Fill, Input, Sizes};
use crate::{add, check, lanes};
use engine::{Buffer, Context, Cost, Device, Error, Form, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `x [.., in], w [out, in] → y [.., out]`.
///
/// - Formula: `y = x·wᵀ`
/// - VJP: `d_x = d_y·w`, `d_w = d_yᵀ·x`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Linear;

/// `x [.., in], w [out, in], residual [.., out] → y [.., out]`: a projection that writes into the residual stream. The products
/// are added to the residual one by one, without a pass over memory of its own.
///
/// - Formula: `y = residual + x·wᵀ`
/// - VJP: `d_x = d_y·w`, `d_w = d_yᵀ·x`, `d_residual = d_y`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct LinearResidual;

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "w"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        Ok(vec![Output { name: "y", spec: infer(ins[0], ins[1])? }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        reads(wants)
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let (x, w) = (ins[0], ins[1]);
        let sizes = sizes(x.spec(), w.spec());
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, sizes, x, w, None, &mut outs[0]);
        }
        with_real!(x.dtype(), T => {
            let w = cpu::Weight { w: w.as_slice(), packed: forms::given(ins, 2, Use::Forward) };
            cpu::forward::<T>(sizes, x.as_slice(), w, outs[0].as_mut_slice(), Accumulate::Write);
        });
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        _: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        vjp_product(cx.device, wants, ins, 2, d_out, d_ins);
    }

    fn forms(&self, device: &Device, ins: &[Spec], pass: Pass) -> Vec<Option<Form>> {
        forms::of_weight(device, 1, ins[1], pass)
    }

    fn prepare(&self, _cx: &mut Context, number: usize, input: &Buffer, form: &mut Buffer) {
        forms::prepare(number, input, form);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        cost(ins, pass)
    }
}

impl Op for LinearResidual {
    fn name(&self) -> &'static str {
        "linear_residual"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "w", "residual"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        let y = infer(ins[0], ins[1])?;
        check::is("residual", ins[2], y.dtype, y.shape.dims())?;
        Ok(vec![Output { name: "y", spec: y }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        reads(wants)
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let (x, w, residual) = (ins[0], ins[1], ins[2]);
        let sizes = sizes(x.spec(), w.spec());
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, sizes, x, w, Some(residual), &mut outs[0]);
        }
        with_real!(x.dtype(), T => {
            let y = outs[0].as_mut_slice::<T>();
            lanes::pass_on(Want::Write, residual.as_slice(), y);
            let w = cpu::Weight { w: w.as_slice(), packed: forms::given(ins, 3, Use::Forward) };
            cpu::forward(sizes, x.as_slice(), w, y, Accumulate::Add);
        });
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        _: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        vjp_product(cx.device, wants, ins, 3, d_out, d_ins);
        if let Device::Cuda(gpu) = cx.device {
            return add::cuda::pass_on(&**gpu, wants[2], d_out, &mut d_ins[2]);
        }
        if wants[2].is_wanted() {
            with_real!(d_out.dtype(), T => lanes::pass_on::<T>(wants[2], d_out.as_slice(), d_ins[2].as_mut_slice()));
        }
    }

    fn passes_through(&self, i: usize) -> bool {
        i == 2
    }

    fn forms(&self, device: &Device, ins: &[Spec], pass: Pass) -> Vec<Option<Form>> {
        forms::of_weight(device, 1, ins[1], pass)
    }

    fn prepare(&self, _cx: &mut Context, number: usize, input: &Buffer, form: &mut Buffer) {
        forms::prepare(number, input, form);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (elements, bytes) = (ins[2].shape.numel() as u64, ins[2].bytes() as u64);
        let residual = match pass {
            Pass::Forward => Cost { flops: elements, bytes },
            // The gradient is the result's own: there is work only where it must be in two places.
            Pass::Vjp(wants) | Pass::Fused(wants) => match wants[2] {
                Want::Skip => Cost::default(),
                Want::Write => Cost { flops: 0, bytes },
                Want::Add => Cost { flops: elements, bytes: 2 * bytes },
            },
        };
        cost(ins, pass) + residual
    }
}

fn infer(x: Spec, w: Spec) -> Result<Spec> {
    let dtype = check::real("x", x)?;
    if x.shape.rank() == 0 {
        return Err(Error::usage(format!("x is {x}, must have at least one dimension")));
    }
    check::rank("w", w, 2)?;
    check::is("w", w, dtype, &[w.shape.dims()[0], x.shape.last()])?;
    Ok(Spec { dtype, shape: x.shape.with_last(w.shape.dims()[0]) })
}

fn sizes(x: Spec, w: Spec) -> cpu::Sizes {
    cpu::Sizes { rows: x.shape.rows(), inputs: w.shape.last(), outputs: w.shape.rows() }
}

/// The gradient of either factor needs the other.
fn reads(wants: &[Want]) -> Reads {
    Reads { ins: u16::from(wants[1].is_wanted()) | u16::from(wants[0].is_wanted()) << 1, outs: 0 }
}

/// `own` inputs stand before the prepared forms.
fn vjp_product(device: &Device, wants: &[Want], ins: &[&Buffer], own: usize, d_y: &Buffer, d_ins: &mut [Buffer]) {
    let (rows, outputs) = (d_y.shape().rows(), d_y.shape().last());
    let sizes = |inputs: usize| cpu::Sizes { rows, inputs, outputs };
    if wants[0].is_wanted() {
        let (w, want, d_x) = (ins[1], wants[0], &mut d_ins[0]);
        let sizes = sizes(w.shape().last());
        match device {
            Device::Cuda(gpu) => cuda::vjp_x(&**gpu, sizes, d_y, w, want, d_x),
            Device::Cpu => with_real!(d_y.dtype(), T => {
                let w = cpu::Weight { w: w.as_slice(), packed: forms::given(ins, own, Use::Backward) };
                cpu::vjp_x::<T>(sizes, d_y.as_slice(), w, want, d_x.as_mut_slice());
            }),
        }
    }
    if wants[1].is_wanted() {
        let (x, want, d_w) = (ins[0], wants[1], &mut d_ins[1]);
        let sizes = sizes(x.shape().last());
        match device {
            Device::Cuda(gpu) => cuda::vjp_w(&**gpu, sizes, d_y, x, want, d_w),
            Device::Cpu => with_real!(d_y.dtype(), T => {
                cpu::vjp_w::<T>(sizes, d_y.as_slice(), x.as_slice(), want, d_w.as_mut_slice());
            }),
        }
    }
}

/// One product for the result, one for each wanted factor's gradient.
fn cost(ins: &[Spec], pass: Pass) -> Cost {
    let (x, w) = (ins[0], ins[1]);
    let s = sizes(x, w);
    let product = 2 * (s.rows * s.inputs * s.outputs) as u64;
    let y = (s.rows * s.outputs * x.dtype.size()) as u64;
    let (x, w) = (x.bytes() as u64, w.bytes() as u64);
    match pass {
        Pass::Forward => Cost { flops: product, bytes: x + w + y },
        Pass::Vjp(wants) | Pass::Fused(wants) => {
            let gradient = |want, size, other| match want {
                Want::Skip => Cost::default(),
                Want::Write => Cost { flops: product, bytes: other + size },
                Want::Add => Cost { flops: product, bytes: other + 2 * size },
            };
            let d_y = if wants[0].is_wanted() || wants[1].is_wanted() { y } else { 0 };
            gradient(wants[0], x, w) + gradient(wants[1], w, x) + Cost { flops: 0, bytes: d_y }
        }
    }
}

/// The linear maps of a model.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let (d, f) = (s.dim(), s.ffn);
    let tokens = |width| Input::new(&[s.batch, s.tokens, width], Fill::NORMAL);
    let latents = || Input::new(&[s.batch, s.latents, d], Fill::NORMAL);
    let weight =
        |out, width: usize| Input::new(&[out, width], Fill::Normal { mean: 0.0, std: 1.0 / (width as f64).sqrt() });
    vec![
        Case::new("queries, keys, values", Linear, vec![tokens(d), weight(3 * d, d)]),
        Case::new("queries of the latents", Linear, vec![tokens(d), weight(d, d)]),
        Case::new("keys, values of the latents", Linear, vec![latents(), weight(2 * d, d)]),
        Case::new("gate and up", Linear, vec![tokens(d), weight(2 * f, d)]),
        Case::new("attention output", LinearResidual, vec![tokens(d), weight(d, d), tokens(d)]),
        Case::new("down", LinearResidual, vec![tokens(f), weight(d, f), tokens(d)]),
        Case::new("logits of one token", Linear, vec![Input::new(&[s.batch, d], Fill::NORMAL), weight(s.vocab, d)]),
    ]
}

#[cfg(test)]
mod tests;
