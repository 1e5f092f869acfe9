//! The language-model head: product with the embedding table, log-softmax, cross-entropy and the backward pass, in one
//! op that holds the logits of only a few tokens at a time.
//!
//! A target of −1 is ignored: the token adds nothing to the loss, and its nll, lse and gradient are zero. A logit that
//! is not finite makes the nll, the loss and the gradient of its token NaN, except that −∞ is an ordinary score in the gradient
//! of the score entropy. (On a GPU the hidden state of an ignored
//! token must be finite.) All results except the loss and `d_table` belong to one token, and their bits do not depend
//! on other tokens.
//!
//! On a GPU the fused pass of the cross-entropy with one factor, without the table's gradient, reports no nll above 88 + log V: see `exponentials` in
//! `kernel.cu`. If tensors are bf16, gradients and the losses of a fused pass come from bf16 logits; a separate VJP
//! combines bf16 logits with the lse of f32 logits. `forward` has no limit and keeps its logits in f32.
//!
//! All V·B·N logits together would be the largest tensor of a model. On the CPU, the loss and the gradient of the
//! hidden state need only as many logits as fit into the cache (`stream.rs`). If the table's gradient is also wanted,
//! the fused pass takes a chunk of tokens, turns its logits into their gradients in place, and multiplies these by the
//! table and the hidden state. That takes three products; with a separate VJP, which recomputes the logits, it takes
//! four. The products dominate the time.

mod cpu;
pub(crate) mod cuda;
mod inputs;
mod stream;

pub use cuda::CHUNK;

use self::cuda::Head;
use self::inputs::{Inputs, Outputs};
use crate::case::{Case, Fill, Input, Sizes};
use crate::check;
use crate::cost::{self, any_wanted};
use crate::lanes::{split, wanted};
use crate::matmul::mat::Mat;
use crate::matmul::{bf16, prepare_weight, rounds, weight_forms};
use engine::simd::Real;
use engine::{
    Buffer, Context, Cost, DType, Device, Element, Form, Op, Output, Pass, Reads, Result, Shape, Spec, Want, with_real,
};

/// `hidden [B, N, d], table [V, d], targets i32 [B, N], scale [1] or [B, N] → loss [1], nll [B, N], lse [B, N]`.
///
/// `table` may be the embedding. Not differentiable in `targets` and `scale`, which is one factor or one for each token.
///
/// - Formula: `logits[n, v] = Σ_i hidden[n, i]·table[v, i]`, `lse[n] = log Σ_v exp logits[n, v]`,
///   `nll[n] = lse[n] − logits[n, target[n]]`, `loss = Σ_n scale[n]·cost[n]`, where the cost is `nll`, or `nll + Z − 1 − log Z`
///   with `log Z = lse − log V` for the score entropy
/// - VJP: with `d_logits[n, v] = d_loss·scale[n]·(exp(logits[n, v] − divisor[n]) − [v = target[n]])`, where the divisor is
///   `lse`, or `log V` for the score entropy: `d_hidden = d_logits·table`, `d_table = d_logitsᵀ·hidden`
/// - Source: softmax and cross-entropy; the table tied to the output as in Press and Wolf, arXiv 1608.05859; score entropy as
///   in Lou et al., arXiv 2310.16834
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LmHead {
    /// −log p of the target.
    CrossEntropy,
    /// The same, and the price Z − 1 − log Z of scores `exp(logits) / V` whose sum Z is not 1. Z grows as fast as the exponentials of
    /// logits do.
    ScoreEntropy,
}

impl Op for LmHead {
    fn name(&self) -> &'static str {
        match self {
            Self::CrossEntropy => "lm_head",
            Self::ScoreEntropy => "score_entropy",
        }
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["hidden", "table", "targets", "scale"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let [hidden, table, targets, scale] = [ins[0], ins[1], ins[2], ins[3]];
        let dtype = check::real("hidden", hidden)?;
        check::rank("hidden", hidden, 3)?;
        check::rank("table", table, 2)?;
        check::is("table", table, dtype, &[table.shape.dims()[0], hidden.shape.last()])?;
        let tokens = &hidden.shape.dims()[..2];
        check::is("targets", targets, DType::I32, tokens)?;
        let precise = check::statistic(dtype);
        check::is("scale", scale, precise, if scale.shape.dims() == tokens { tokens } else { &[1] })?;
        let output = |name, dims: &[usize]| Output { name, spec: Spec::new(precise, dims) };
        Ok(vec![output("loss", &[1]), output("nll", tokens), output("lse", tokens)])
    }

    fn differentiable(&self, i: usize) -> bool {
        i < 2
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[0, 1, 2, 3], if *self == Self::CrossEntropy { &[2] } else { &[] })
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return Head::new(cx, &**gpu, *self, ins, Pass::Forward).forward(outs);
        }
        with_real!(ins[0].dtype(), T => {
            let (memory, rounded) = memory(cx, ins, Pass::Forward);
            cpu::forward::<T>(self.inputs(ins, rounded), memory, outputs(outs));
        });
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return Head::new(cx, &**gpu, *self, ins, Pass::Vjp(wants)).vjp(outs[2], d_y, (wants, d));
        }
        with_real!(d_y.dtype(), T => {
            let (d_loss, (memory, rounded)) = (d_y.as_slice()[0], memory(cx, ins, Pass::Vjp(wants)));
            let lse = if outs[2].is_empty() { &[] } else { outs[2].as_slice() };
            let gradients = gradients(wants, d);
            cpu::vjp::<T>(self.inputs(ins, rounded), memory, lse, d_loss, gradients);
        });
    }

    fn fuses(&self) -> bool {
        true
    }

    fn forward_vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], outs: &mut [Buffer], d: &mut [Buffer]) {
        if !any_wanted(wants) {
            return self.forward(cx, ins, outs);
        }
        if let Device::Cuda(gpu) = cx.device {
            return Head::new(cx, &**gpu, *self, ins, Pass::Fused(wants)).forward_vjp(outs, (wants, d));
        }
        with_real!(ins[0].dtype(), T => {
            let gradients = gradients(wants, d);
            let (memory, rounded) = memory(cx, ins, Pass::Fused(wants));
            cpu::forward_vjp::<T>(self.inputs(ins, rounded), memory, outputs(outs), gradients);
        });
    }

    fn forms(&self, device: &Device, ins: &[Spec], pass: Pass) -> Vec<Option<Form>> {
        if matches!(pass, Pass::Vjp(wants) if !any_wanted(wants)) {
            return Vec::new();
        }
        let mut forms = weight_forms(device, ins[1], Pass::Forward);
        // In f32 only for the logits: the product back to the hidden state packs by copying whole rows, and a second form
        // of the table would take much memory.
        if rounds(device, ins[1].dtype) && pass.gives(0) {
            forms.push(forms[0]);
        }
        forms
    }

    fn prepare(&self, _cx: &mut Context, number: usize, input: &Buffer, form: &mut Buffer) {
        match number {
            0 => prepare_weight(number, input, form),
            _ => inputs::pack_blocks(input.as_slice::<f32>(), input.shape().last(), form.as_mut_slice()),
        }
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        if let Device::Cuda(_) = device {
            return cuda::Shape::new(ins[0], ins[1], pass).scratch() * DType::F32.size();
        }
        let [hidden, table] = [ins[0].shape, ins[1].shape];
        let rounds = rounds(device, ins[0].dtype);
        let rounded = if rounds { rounded(hidden, table, pass).iter().sum() } else { 0 };
        (working(hidden, table, pass, rounds) + rounded) * ins[0].dtype.size()
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let logits = ins[0].shape.rows() * ins[1].shape.rows();
        let product = 2 * logits * ins[0].shape.last();
        // Per logit: maximum, difference, exp, sum; for its gradient difference, exp, factor.
        let loss = product + 4 * logits;
        let gradients = 3 * logits + cost::wanted(pass.wants(), &[product, product]);
        let flops = match (pass, any_wanted(pass.wants())) {
            (Pass::Vjp(_), false) => 0,
            (Pass::Vjp(_), true) => product + gradients,
            (Pass::Fused(_), true) => loss + gradients,
            (Pass::Forward | Pass::Fused(_), _) => loss,
        };
        Cost { flops: flops as u64, bytes: cost::bytes(self, ins, pass) }
    }
}

/// Elements of working memory on the CPU.
fn working(hidden: Shape, table: Shape, pass: Pass, rounds: bool) -> usize {
    let (tokens, dim) = (hidden.rows(), hidden.last());
    let whole_rows = matches!(pass, Pass::Vjp(_)) || pass.gives(1);
    if whole_rows { cpu::scratch(tokens, dim, table.rows()) } else { stream::scratch(tokens, dim, rounds) }
}

/// Elements of f32 that hold the table in bf16, packed for the logits and for the way back, and a chunk's hidden states. The
/// first two are used if the op gets no prepared forms.
fn rounded(hidden: Shape, table: Shape, pass: Pass) -> [usize; 3] {
    let (dim, vocab, most) = (hidden.last(), table.rows(), cpu::CHUNK.min(hidden.rows()));
    let wanted = |i, [k, n]: [usize; 2]| if pass.gives(i) { bf16::packed_len(k, n) / 2 } else { 0 };
    [bf16::packed_len(dim, vocab) / 2, wanted(0, [vocab, dim]), wanted(1, [most, dim])]
}

/// Working memory, and the table in bf16 if products round their factors.
fn memory<'a, T: Real>(
    cx: &'a mut Context,
    ins: &[&'a Buffer],
    pass: Pass,
) -> (&'a mut [T], Option<inputs::Rounded<'a>>) {
    let [hidden, table] = [ins[0].shape(), ins[1].shape()];
    let rounds = rounds(cx.device, T::DTYPE);
    let working = working(hidden, table, pass, rounds);
    if !rounds {
        return (cx.scratch(working), None);
    }
    let (lens, dim) = (rounded(hidden, table, pass), table.last());
    let all = cx.scratch(lens.iter().sum::<usize>() + working);
    let [logits, blocks, memory] = split(all, [lens[0], lens[1], lens[2] + working]);
    let form = |number: usize| ins.get(4 + number).filter(|form| !form.is_empty()).map(|form| form.as_slice());
    let [logits, blocks]: [&mut [half::bf16]; 2] = [logits, blocks].map(bytemuck::cast_slice_mut);
    let logits = form(0).unwrap_or_else(|| {
        bf16::pack(Mat::new(ins[1].as_slice::<T>(), table.rows(), dim).transposed(), logits);
        logits
    });
    let blocks = form(1).unwrap_or_else(|| {
        inputs::pack_blocks(ins[1].as_slice::<T>(), dim, blocks);
        blocks
    });
    (memory, Some(inputs::Rounded { logits, blocks }))
}

impl LmHead {
    fn inputs<'a, T: Element>(self, ins: &[&'a Buffer], rounded: Option<inputs::Rounded<'a>>) -> Inputs<'a, T> {
        let packed = ins.get(4).filter(|form| rounded.is_none() && !form.is_empty());
        Inputs {
            head: self,
            hidden: ins[0].as_slice(),
            table: ins[1].as_slice(),
            packed: packed.map(|form| form.as_slice()),
            rounded,
            targets: ins[2].as_slice(),
            scale: ins[3].as_slice(),
            dim: ins[0].shape().last(),
        }
    }
}

fn outputs<T: Element>(outs: &mut [Buffer]) -> Outputs<'_, T> {
    let [loss, nll, lse] = outs else { unreachable!("three outputs") };
    Outputs { loss: loss.as_mut_slice(), nll: nll.as_mut_slice(), lse: lse.as_mut_slice() }
}

fn gradients<'a, T: Real>(wants: &[Want], d_ins: &'a mut [Buffer]) -> cpu::Gradients<'a, T> {
    let [d_hidden, d_table, ..] = d_ins else { unreachable!("four inputs") };
    cpu::Gradients { d_hidden: (wants[0], wanted(wants[0], d_hidden)), d_table: (wants[1], wanted(wants[1], d_table)) }
}

/// The head over all tokens, and over a text with some tokens ignored: with one factor, and with one for each token.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let one = Input::statistic(&[1], Fill::Given(vec![0.625]));
    let each = Input::statistic(&[s.batch, s.tokens], Fill::Between { low: 0.1, high: 1.5 });
    let case = |label: &str, head: LmHead, targets: Fill, scale: &Input| {
        let hidden = Input::normal(&[s.batch, s.tokens, s.dim()]);
        // Logits of magnitude one, for any width.
        let table = Input::new(&[s.vocab, s.dim()], Fill::Normal { mean: 0.0, std: 1.0 / (s.dim() as f64).sqrt() });
        let targets = Input::new(&[s.batch, s.tokens], targets);
        Case::new(label, head, vec![hidden, table, targets, scale.clone()])
    };
    let (all, some) = (Fill::Integers { below: s.vocab }, Fill::Labels { below: s.vocab });
    vec![
        case("all tokens", LmHead::CrossEntropy, all, &one),
        case("some ignored", LmHead::CrossEntropy, some.clone(), &one),
        case("weighted", LmHead::CrossEntropy, some.clone(), &each),
        case("weighted", LmHead::ScoreEntropy, some, &each),
    ]
}

#[cfg(test)]
mod tests;
