//! Linear maps: `y = x·wᵀ`, alone or added to a residual stream or a bias, with one matrix product. And [`MatMul`], the products of two
//! tensors.
//!
//! Weights are stored `[out, in]`; all but the last dimension of `x` count as rows. Every element of a product is one
//! chain of fused multiply-adds in the order of the summed index, on one thread. So the bits of a row of `y` or `d_x`
//! do not depend on the other rows, and those of `d_w` do not depend on the number of threads. A product of more than a
//! few dozen rows is compute-bound; with fewer rows, reading `w` takes the time.

mod batched;
pub mod bf16;
pub mod gemm;
mod geometry;
pub mod mat;
mod microkernel;
mod pack;
#[allow(unsafe_code)]
pub(crate) mod tiles;

pub use self::batched::MatMul;

use self::Stored::{Plain, Transposed};
use self::gemm::{Factor, gemm, gemm_onto, pack_b, packed_len};
use self::mat::{Mat, MatMut};
use crate::case::{Case, Fill, Input, Sizes};
use crate::elementwise::{self, Elementwise};
use crate::launch::product;
use crate::{check, cost};
use engine::cuda::{self, Pointer};
use engine::{
    Buffer, Context, Cost, DType, Device, Element, Form, Op, Output, Pass, Reads, Result, Spec, Want, with_real,
};

/// `x [.., in], w [out, in] → y [.., out]`.
///
/// - Formula: `y = x·wᵀ`
/// - VJP: `d_x = d_y·w`, `d_w = d_yᵀ·x`
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct Linear;

/// `x [.., in], w [out, in], residual [.., out] or [out] → y [.., out]`: a projection that adds to the residual stream, or a bias.
/// Only a bias on a GPU takes a separate pass over memory.
///
/// - Formula: `y = residual + x·wᵀ`
/// - VJP: `d_x = d_y·w`, `d_w = d_yᵀ·x`, `d_residual = d_y`, summed over all rows for a bias
/// - Source: elementary
#[derive(Clone, Copy, Debug)]
pub struct LinearResidual;

/// Shared code of both maps. Prepared forms may follow their inputs.
macro_rules! linear_map {
    () => {
        fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
            Ok(vec![Output { name: "y", spec: infer(ins)? }])
        }

        /// The gradient of each factor needs the other factor.
        fn reads(&self, wants: &[Want]) -> Reads {
            Reads { ins: u16::from(wants[1].is_wanted()) | u16::from(wants[0].is_wanted()) << 1, outs: 0 }
        }

        fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
            forward(cx, ins, self.arguments().len(), &mut outs[0]);
        }

        fn vjp(
            &self,
            cx: &mut Context,
            wants: &[Want],
            ins: &[&Buffer],
            _: &[&Buffer],
            d_y: &Buffer,
            d: &mut [Buffer],
        ) {
            vjp(cx, wants, ins, self.arguments().len(), d_y, d);
        }

        fn passes_through(&self, i: usize) -> bool {
            i == 2
        }

        fn forms(&self, device: &Device, ins: &[Spec], pass: Pass) -> Vec<Option<Form>> {
            weight_forms(device, ins[1], pass)
        }

        fn prepare(&self, _cx: &mut Context, number: usize, input: &Buffer, form: &mut Buffer) {
            prepare_weight(number, input, form);
        }

        fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
            scratch(device, ins, pass)
        }

        /// One product for the result, one for each wanted factor's gradient.
        fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
            let product = 2 * ins[0].shape.numel() * ins[1].shape.rows();
            let results = ins[0].shape.rows() * ins[1].shape.rows();
            let added = match (pass, ins.get(2)) {
                (_, None) => 0,
                (Pass::Forward | Pass::Vjp([_, _, Want::Add]), Some(_)) => results,
                (Pass::Vjp([_, _, Want::Write]), Some(bias)) if bias.shape.numel() < results => results,
                _ => 0,
            };
            let products = match pass {
                Pass::Forward => product,
                _ => cost::wanted(pass.wants(), &[product, product]),
            };
            Cost { flops: (products + added) as u64, bytes: cost::bytes(self, ins, pass) }
        }
    };
}

impl Op for Linear {
    check::names!("linear": x, w);
    linear_map!();
}

impl Op for LinearResidual {
    check::names!("linear_residual": x, w, residual);
    linear_map!();
}

fn infer(ins: &[Spec]) -> Result<Spec> {
    let (x, w) = (ins[0], ins[1]);
    let dtype = check::real("x", x)?;
    check::that(x.shape.rank() > 0, || format!("x is {x}, must have at least one dimension"))?;
    check::rank("w", w, 2)?;
    check::is("w", w, dtype, &[w.shape.dims()[0], x.shape.last()])?;
    let y = Spec { dtype, shape: x.shape.with_last(w.shape.dims()[0]) };
    if let Some(&residual) = ins.get(2) {
        let bias = Spec::new(dtype, &[y.shape.last()]);
        check::that(residual == y || residual == bias, || format!("residual is {residual}, must be {y} or {bias}"))?;
    }
    Ok(y)
}

/// `own` inputs, two or three, come before the prepared forms.
fn forward(cx: &mut Context, ins: &[&Buffer], own: usize, y: &mut Buffer) {
    let (x, w, residual, form) = (ins[0], ins[1], ins[..own].get(2).copied(), ins.get(own).copied());
    // y[r, o] = Σ_i x[r, i]·w[o, i]
    let sizes = [x.shape().rows(), y.shape().last(), x.shape().last()];
    multiply(cx, sizes, [(Plain, x), (Transposed, w)], form, residual, Want::Write, y);
}

/// As in [`forward`].
fn vjp(cx: &mut Context, wants: &[Want], ins: &[&Buffer], own: usize, d_y: &Buffer, d: &mut [Buffer]) {
    let (x, w, rows, outputs) = (ins[0], ins[1], d_y.shape().rows(), d_y.shape().last());
    let [d_x, d_w, d_residual @ ..] = d else { unreachable!("two inputs or three") };
    if wants[0].is_wanted() {
        // d_x[r, i] = Σ_o d_y[r, o]·w[o, i]
        let (sizes, form) = ([rows, w.shape().last(), outputs], ins.get(own + 1).copied());
        multiply(cx, sizes, [(Plain, d_y), (Plain, w)], form, None, wants[0], d_x);
    }
    if wants[1].is_wanted() {
        // d_w[o, i] = Σ_r d_y[r, o]·x[r, i]
        let sizes = [outputs, x.shape().last(), rows];
        multiply(cx, sizes, [(Transposed, d_y), (Plain, x)], None, None, wants[1], d_w);
    }
    for (&want, d_residual) in wants[2..].iter().zip(d_residual) {
        elementwise::pass_on(cx, want, d_y, d_residual);
    }
}

/// How a matrix [rows, cols] is stored: the last two sizes of its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As [rows, cols].
    Plain,
    /// As its transpose [cols, rows].
    Transposed,
}

impl Stored {
    /// The order in which the sizes [rows, cols] are stored.
    fn order(self, [rows, cols]: [usize; 2]) -> [usize; 2] {
        if self == Plain { [rows, cols] } else { [cols, rows] }
    }

    /// Rows and columns of the matrices of a tensor of at least two dimensions.
    fn sizes(self, of: Spec) -> [usize; 2] {
        let [.., rows, cols] = *of.shape.dims() else { unreachable!("matrices have two sizes") };
        self.order([rows, cols])
    }

    /// How the transpose of the matrix is stored.
    fn turned(self) -> Self {
        if self == Plain { Transposed } else { Plain }
    }
}

/// y [rows, cols] = a [rows, inner] · b [inner, cols], plus `residual` [rows, cols] or [cols] if there is one; to `Add`,
/// y += a·b. `form` is the prepared form of b, if there is one.
fn multiply(
    cx: &mut Context,
    [rows, cols, inner]: [usize; 3],
    [a, b]: [(Stored, &Buffer); 2],
    form: Option<&Buffer>,
    residual: Option<&Buffer>,
    want: Want,
    y: &mut Buffer,
) {
    if let Device::Cuda(gpu) = cx.device {
        let factor = |(stored, x): (Stored, &Buffer)| on_gpu(stored, x.into());
        let added = match residual {
            _ if want == Want::Add => Some(y.pointer()),
            Some(residual) if residual.len() == y.len() => Some(Pointer::from(residual)),
            _ => None,
        };
        product(&**gpu, [rows, cols, inner], [factor(a), factor(b)], added, y.into());
        if let Some(bias) = residual.filter(|residual| residual.len() < y.len()) {
            elementwise::add_repeated(&**gpu, y, bias);
        }
        return;
    }
    let form = form.filter(|form| !form.is_empty());
    if rounds(cx.device, y.dtype()) {
        let b = form.map_or_else(|| pack_rounded(cx, view(b.0, b.1.as_slice(), inner, cols)), Buffer::as_slice);
        let (c, a) = (MatMut::<f32>::new(y.as_mut_slice(), rows, cols), view(a.0, a.1.as_slice(), rows, inner));
        return match residual {
            Some(residual) => bf16::product_onto(c, repeated(residual, rows, cols), a, b),
            None => bf16::product(c, a, b, want),
        };
    }
    with_real!(y.dtype(), T => {
        let form = form.map(|form| Factor::Packed(form.as_slice()));
        let b = form.unwrap_or_else(|| Factor::Plain(view(b.0, b.1.as_slice(), inner, cols)));
        let (c, a) = (MatMut::<T>::new(y.as_mut_slice(), rows, cols), view(a.0, a.1.as_slice(), rows, inner));
        match residual {
            Some(residual) => gemm_onto(c, repeated(residual, rows, cols), a, b),
            None => gemm(c, a, b, want),
        }
    });
}

/// A residual, or a bias as rows that are all the same.
fn repeated<T: Element>(residual: &Buffer, rows: usize, cols: usize) -> Mat<'_, T> {
    let row_stride = if residual.len() < rows * cols { 0 } else { cols };
    Mat::with_strides(residual.as_slice(), rows, cols, row_stride, 1)
}

/// Whether products of matrices of this type round their factors to bf16.
pub(crate) fn rounds(device: &Device, dtype: DType) -> bool {
    device.rounds_products() && dtype == DType::F32
}

/// Packs a right factor into the scratch memory.
fn pack_rounded<'a>(cx: &'a mut Context, b: Mat<'_, f32>) -> &'a [half::bf16] {
    let packed = cx.scratch(bf16::packed_len(b.rows, b.cols));
    bf16::pack(b, packed);
    packed
}

/// Bytes for the right factor of a product that rounds, or for the sums of a bias's gradient: they follow each other.
fn scratch(device: &Device, ins: &[Spec], pass: Pass) -> usize {
    let sums = match (pass, ins.get(2)) {
        (Pass::Vjp(&[_, _, want]), Some(&bias)) if want.is_wanted() => {
            let y = Spec { dtype: bias.dtype, shape: ins[0].shape.with_last(bias.shape.last()) };
            Elementwise::Add.scratch(device, &[y, bias], Pass::Vjp(&[Want::Skip, want]))
        }
        _ => 0,
    };
    if !rounds(device, ins[0].dtype) {
        return sums;
    }
    let (rows, outputs, inputs) = (ins[0].shape.rows(), ins[1].shape.rows(), ins[1].shape.last());
    let elements = match pass {
        Pass::Forward => bf16::packed_len(inputs, outputs),
        Pass::Vjp(_) | Pass::Fused(_) => {
            let wanted = |i, len| if pass.gives(i) { len } else { 0 };
            wanted(0, bf16::packed_len(outputs, inputs)).max(wanted(1, bf16::packed_len(rows, inputs)))
        }
    };
    sums.max(elements * DType::Bf16.size())
}

/// A factor [rows, cols].
fn view<T: Copy>(stored: Stored, x: &[T], rows: usize, cols: usize) -> Mat<'_, T> {
    match stored {
        Plain => Mat::new(x, rows, cols),
        Transposed => Mat::new(x, cols, rows).transposed(),
    }
}

/// A factor on a GPU.
fn on_gpu(stored: Stored, x: Pointer) -> cuda::Factor {
    match stored {
        Plain => cuda::Factor::Plain(x),
        Transposed => cuda::Factor::Transposed(x),
    }
}

/// The forms of the weight `w` [out, in], input number 1, that a pass of a linear map reads: number 0 for the product with x,
/// number 1 for that with d_y.
pub(crate) fn weight_forms(device: &Device, w: Spec, pass: Pass) -> Vec<Option<Form>> {
    // On a GPU, products take unpacked matrices.
    if !matches!(device, Device::Cpu(_)) {
        return Vec::new();
    }
    let (outputs, inputs) = (w.shape.rows(), w.shape.last());
    let form = |k, n| {
        let spec = match rounds(device, w.dtype) {
            true => Spec::new(DType::Bf16, &[bf16::packed_len(k, n)]),
            false => Spec::new(w.dtype, &[packed_len(k, n)]),
        };
        Some(Form { input: 1, spec })
    };
    let (forward, backward) = (form(inputs, outputs), form(outputs, inputs));
    match pass {
        Pass::Forward => vec![forward],
        Pass::Vjp(wants) if wants[0].is_wanted() => vec![None, backward],
        Pass::Vjp(_) | Pass::Fused(_) => Vec::new(),
    }
}

/// Makes form `number` of a weight [out, in].
pub(crate) fn prepare_weight(number: usize, w: &Buffer, form: &mut Buffer) {
    let (outputs, inputs) = (w.shape().rows(), w.shape().last());
    with_real!(w.dtype(), T => {
        let w = Mat::<T>::new(w.as_slice(), outputs, inputs);
        let b = if number == 0 { w.transposed() } else { w };
        match form.dtype() {
            DType::Bf16 => bf16::pack(b, form.as_mut_slice()),
            _ => pack_b(b, form.as_mut_slice()),
        }
    });
}

/// The linear maps of a model, and products of two tensors.
pub fn cases(s: &Sizes) -> Vec<Case> {
    [linear_maps(s), batched::cases(s)].concat()
}

fn linear_maps(s: &Sizes) -> Vec<Case> {
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
        Case::new("with a bias", LinearResidual, vec![tokens(d), weight(f, d), Input::normal(&[f])]),
        Case::new("down", LinearResidual, vec![tokens(f), weight(d, f), tokens(d)]),
        Case::new("logits of one token", Linear, vec![Input::normal(&[s.batch, d]), weight(s.vocab, d)]),
    ]
}

#[cfg(test)]
mod tests;
