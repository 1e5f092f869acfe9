//! Linear maps: `y = x·wᵀ`, alone and added to a residual stream, on one matrix product.
//!
//! Weights are stored `[out, in]`; all but the last dimension of `x` count as rows. Every element of a product is one chain of
//! fused multiply-adds in the order of the summed index, on one thread. So a row of `y` or `d_x` has the same bits whatever the
//! other rows are, and `d_w` on any number of threads. Arithmetic bounds a product of more than a few dozen rows, reading `w`
//! one of fewer.

pub(crate) mod forms;
pub mod gemm;
mod geometry;
pub mod mat;
mod microkernel;
mod pack;
#[allow(unsafe_code)]
pub(crate) mod tiles;

use self::forms::Use;
use self::gemm::{Factor, gemm};
use self::mat::{Mat, MatMut};
use crate::case::{Case, Fill, Input, Sizes};
use crate::launch::product;
use crate::{add, check, cost};
use engine::cuda::{self, Pointer};
use engine::{Buffer, Context, Cost, Device, Form, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `x [.., in], w [out, in] → y [.., out]`.
///
/// - Formula: `y = x·wᵀ`
/// - VJP: `d_x = d_y·w`, `d_w = d_yᵀ·x`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Linear;

/// `x [.., in], w [out, in], residual [.., out] → y [.., out]`: a projection that adds to the residual stream without a pass of
/// its own over memory.
///
/// - Formula: `y = residual + x·wᵀ`
/// - VJP: `d_x = d_y·w`, `d_w = d_yᵀ·x`, `d_residual = d_y`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct LinearResidual;

impl Op for Linear {
    check::names!("linear": x, w);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        Ok(vec![Output { name: "y", spec: infer(ins[0], ins[1])? }])
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        reads(wants)
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        forward(cx.device, ins, None, &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        vjp(cx.device, wants, ins, 2, d_y, d);
    }

    fn forms(&self, device: &Device, ins: &[Spec], pass: Pass) -> Vec<Option<Form>> {
        forms::of_weight(device, 1, ins[1], pass)
    }

    fn prepare(&self, _cx: &mut Context, number: usize, input: &Buffer, form: &mut Buffer) {
        forms::prepare(number, input, form);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        Cost { flops: flops(ins, pass) as u64, bytes: cost::bytes(self, ins, pass) }
    }
}

impl Op for LinearResidual {
    check::names!("linear_residual": x, w, residual);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let y = infer(ins[0], ins[1])?;
        check::is("residual", ins[2], y.dtype, y.shape.dims())?;
        Ok(vec![Output { name: "y", spec: y }])
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        reads(wants)
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        forward(cx.device, ins, Some(ins[2]), &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        vjp(cx.device, wants, ins, 3, d_y, d);
        add::pass_on(cx.device, wants[2], d_y, &mut d[2]);
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
        let added = matches!(pass, Pass::Forward | Pass::Vjp([.., Want::Add]));
        let residual = if added { ins[2].shape.numel() } else { 0 };
        Cost { flops: (flops(ins, pass) + residual) as u64, bytes: cost::bytes(self, ins, pass) }
    }
}

fn infer(x: Spec, w: Spec) -> Result<Spec> {
    let dtype = check::real("x", x)?;
    check::that(x.shape.rank() > 0, || format!("x is {x}, must have at least one dimension"))?;
    check::rank("w", w, 2)?;
    check::is("w", w, dtype, &[w.shape.dims()[0], x.shape.last()])?;
    Ok(Spec { dtype, shape: x.shape.with_last(w.shape.dims()[0]) })
}

/// The gradient of either factor needs the other.
fn reads(wants: &[Want]) -> Reads {
    Reads { ins: u16::from(wants[1].is_wanted()) | u16::from(wants[0].is_wanted()) << 1, outs: 0 }
}

fn forward(device: &Device, ins: &[&Buffer], residual: Option<&Buffer>, y: &mut Buffer) {
    let (x, w) = (ins[0], ins[1]);
    let [rows, inputs, outputs] = [x.shape().rows(), x.shape().last(), y.shape().last()];
    if let Device::Cuda(gpu) = device {
        let factors = [cuda::Factor::Plain(x.into()), cuda::Factor::Transposed(w.into())];
        return product(&**gpu, [rows, outputs, inputs], factors, residual.map(Pointer::from), y.into());
    }
    let (own, want) = if residual.is_some() { (3, Want::Add) } else { (2, Want::Write) };
    if let Some(residual) = residual {
        add::pass_on(device, Want::Write, residual, y);
    }
    // y[r, o] = Σ_i x[r, i]·w[o, i]
    with_real!(x.dtype(), T => {
        let w = Mat::<T>::new(w.as_slice(), outputs, inputs).transposed();
        let w = forms::given(ins, own, Use::Forward).map_or(Factor::Plain(w), Factor::Packed);
        gemm(MatMut::new(y.as_mut_slice(), rows, outputs), Mat::new(x.as_slice(), rows, inputs), w, want);
    });
}

/// The gradients of x and w; `own` inputs stand before the prepared forms.
fn vjp(device: &Device, wants: &[Want], ins: &[&Buffer], own: usize, d_y: &Buffer, d: &mut [Buffer]) {
    let (rows, outputs) = (d_y.shape().rows(), d_y.shape().last());
    let [d_x, d_w, ..] = d else { unreachable!("two inputs or three") };
    if wants[0].is_wanted() {
        let (w, inputs) = (ins[1], ins[1].shape().last());
        match device {
            Device::Cuda(gpu) => {
                let factors = [cuda::Factor::Plain(d_y.into()), cuda::Factor::Plain(w.into())];
                product(&**gpu, [rows, inputs, outputs], factors, added_to(wants[0], d_x), d_x.into());
            }
            // d_x[r, i] = Σ_o d_y[r, o]·w[o, i]
            Device::Cpu => with_real!(d_y.dtype(), T => {
                let w = Factor::Plain(Mat::<T>::new(w.as_slice(), outputs, inputs));
                let w = forms::given(ins, own, Use::Backward).map_or(w, Factor::Packed);
                let d_y = Mat::new(d_y.as_slice(), rows, outputs);
                gemm(MatMut::new(d_x.as_mut_slice(), rows, inputs), d_y, w, wants[0]);
            }),
        }
    }
    if wants[1].is_wanted() {
        let (x, inputs) = (ins[0], ins[0].shape().last());
        match device {
            Device::Cuda(gpu) => {
                let factors = [cuda::Factor::Transposed(d_y.into()), cuda::Factor::Plain(x.into())];
                product(&**gpu, [outputs, inputs, rows], factors, added_to(wants[1], d_w), d_w.into());
            }
            // d_w[o, i] = Σ_r d_y[r, o]·x[r, i]
            Device::Cpu => with_real!(d_y.dtype(), T => {
                let d_y = Mat::<T>::new(d_y.as_slice(), rows, outputs).transposed();
                let d_w = MatMut::new(d_w.as_mut_slice(), outputs, inputs);
                gemm(d_w, d_y, Mat::new(x.as_slice(), rows, inputs), wants[1]);
            }),
        }
    }
}

fn added_to(want: Want, gradient: &Buffer) -> Option<Pointer> {
    (want == Want::Add).then(|| gradient.into())
}

/// One product for the result, one for each wanted factor's gradient.
fn flops(ins: &[Spec], pass: Pass) -> usize {
    let product = 2 * ins[0].shape.numel() * ins[1].shape.rows();
    if let Pass::Forward = pass { product } else { cost::wanted(pass.wants(), &[product, product]) }
}

/// The linear maps of a model.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let (d, f) = (s.dim(), s.ffn);
    let tokens = |width| Input::normal(&[s.batch, s.tokens, width]);
    let latents = || Input::normal(&[s.batch, s.latents, d]);
    let weight =
        |out, width: usize| Input::new(&[out, width], Fill::Normal { mean: 0.0, std: 1.0 / (width as f64).sqrt() });
    vec![
        Case::new("queries, keys, values", Linear, vec![tokens(d), weight(3 * d, d)]),
        Case::new("queries of the latents", Linear, vec![tokens(d), weight(d, d)]),
        Case::new("keys, values of the latents", Linear, vec![latents(), weight(2 * d, d)]),
        Case::new("gate and up", Linear, vec![tokens(d), weight(2 * f, d)]),
        Case::new("attention output", LinearResidual, vec![tokens(d), weight(d, d), tokens(d)]),
        Case::new("down", LinearResidual, vec![tokens(f), weight(d, f), tokens(d)]),
        Case::new("logits of one token", Linear, vec![Input::normal(&[s.batch, d]), weight(s.vocab, d)]),
    ]
}

#[cfg(test)]
mod tests;
