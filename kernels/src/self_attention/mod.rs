//! Self-attention: every token sees a window of tokens up to itself, all tokens up to itself, or all tokens, with or without
//! padding. The backward pass recomputes the probabilities from `lse`. All work is proportional to the number of pairs that see
//! each other.

mod backward;
mod band;
mod cpu;
pub(crate) mod cuda;
mod rounded;

use self::backward::Known;
use crate::case::{Case, Fill, Input, Sizes};
use crate::matmul::rounds;
use crate::{check, cost};
use engine::simd::SIDE;
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `qkv [B, N, 3d] → y [B, N, d], lse [B, N, H]`, or `qkv, lengths i32 [B]` for [`Sees::Text`]: a row of `qkv` is queries, keys and values of all heads side by side,
/// queries and keys are already rotated.
///
/// - Formula: for each head, over the tokens j that token i sees, `s_ij = q_i·k_j / √D`, `lse_i = log Σ_j exp s_ij`,
///   `p_ij = exp(s_ij − lse_i)`, `y_i = Σ_j p_ij v_j`
/// - VJP: with `delta_i = y_i·d_y_i` and `d_s_ij = p_ij (d_y_i·v_j − delta_i) / √D`: `d_q_i = Σ_j d_s_ij k_j`,
///   `d_k_j = Σ_i d_s_ij q_i`, `d_v_j = Σ_i p_ij d_y_i`
/// - Source: Vaswani et al., arXiv 1706.03762; windows as in Beltagy et al., "Longformer", arXiv 2004.05150; backward as in
///   Dao, "FlashAttention-2", arXiv 2307.08691
#[derive(Clone, Copy, Debug)]
pub struct SelfAttention {
    /// Heads H; D = d/H.
    pub heads: usize,
    /// The tokens that a token sees.
    pub sees: Sees,
}

/// The tokens j that token i sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// The last k tokens up to itself: j in [i−k+1, i].
    Window(usize),
    /// Itself and all before (causal attention): j ≤ i.
    Past,
    /// All tokens of the sample.
    All,
    /// All tokens of the sample that are not padding. The input `lengths` holds the number of these tokens; padding follows them.
    /// Padding is not seen, its y and lse are zero, and it gets no gradient. So the bits of a text do not depend on N. Lengths
    /// must be in `0..=N`: for others the forward pass panics on the CPU, and a GPU takes the nearest.
    Text,
}

impl Op for SelfAttention {
    fn name(&self) -> &'static str {
        "self_attention"
    }

    fn arguments(&self) -> &'static [&'static str] {
        if self.sees == Sees::Text { &["qkv", "lengths"] } else { &["qkv"] }
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("qkv", ins[0])?;
        check::rank("qkv", ins[0], 3)?;
        let head_dim = check::heads("qkv", ins[0], 3 * self.heads)?;
        check::that(self.sees != Sees::Window(0), || "a window of 0 tokens sees nothing, must be at least 1".into())?;
        let (batch, tokens) = (ins[0].shape.dims()[0], ins[0].shape.dims()[1]);
        if self.sees == Sees::Text {
            check::is("lengths", ins[1], DType::I32, &[batch])?;
        }
        let y = Spec::new(dtype, &[batch, tokens, self.heads * head_dim]);
        let lse = Spec::new(check::statistic(dtype), &[batch, tokens, self.heads]);
        Ok(vec![Output { name: "y", spec: y }, Output { name: "lse", spec: lse }])
    }

    fn differentiable(&self, i: usize) -> bool {
        i == 0
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        if self.sees == Sees::Text { Reads::of(&[0, 1], &[0, 1]) } else { Reads::of(&[0], &[0, 1]) }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let [y, lse] = outs else { unreachable!("two outputs") };
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, self.shape(ins[0].spec()), ins, y, lse);
        }
        let samples = self.samples(ins);
        if self.rounds(cx.device, ins[0].spec()) {
            return rounded::forward(samples, ins[0].as_slice(), y.as_mut_slice(), lse.as_mut_slice());
        }
        with_real!(ins[0].dtype(), T => {
            cpu::forward::<T>(samples, ins[0].as_slice(), y.as_mut_slice(), lse.as_mut_slice());
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let known = [ins[0], outs[0], outs[1], d_y];
        if let Device::Cuda(gpu) = cx.device {
            let shape = self.shape(ins[0].spec());
            let partials = cx.scratch_at(DType::F32, cuda::scratch(shape, d_y.shape().dims()[0]));
            return cuda::backward(&**gpu, shape, ins, known, wants[0], &d[0], partials);
        }
        let samples = self.samples(ins);
        if self.rounds(cx.device, ins[0].spec()) {
            return rounded::backward(samples, Known::new(known), wants[0], d[0].as_mut_slice());
        }
        with_real!(d_y.dtype(), T => {
            backward::backward::<T>(samples, Known::new(known), wants[0], d[0].as_mut_slice());
        })
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        match (device, pass) {
            (Device::Cuda(_), Pass::Vjp(_)) => {
                cuda::scratch(self.shape(ins[0]), ins[0].shape.dims()[0]) * DType::F32.size()
            }
            _ => 0,
        }
    }

    /// Per pair of query and key: forward 4·D, an exponential and 3 more; backward 10·D, an exponential and 5 more. Lengths are
    /// not known here, so padding counts.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let shape = self.shape(ins[0]);
        let (rows, dim) = (ins[0].shape.rows(), shape.dim());
        let seen = (0..shape.tokens).map(|token| shape.seen_until(token) - shape.seen_from(token));
        let pairs = ins[0].shape.dims()[0] * self.heads * seen.sum::<usize>();
        let vjp = pairs * (10 * shape.head_dim + 6) + 2 * rows * dim;
        cost::of(self, ins, pass, pairs * (4 * shape.head_dim + 4), &[vjp])
    }
}

impl SelfAttention {
    /// Whether products round their factors. Below these sizes, rounding gains little or costs time.
    fn rounds(&self, device: &Device, qkv: Spec) -> bool {
        let shape = self.shape(qkv);
        let most = match self.sees {
            Sees::Window(window) => window,
            Sees::Past | Sees::All => shape.tokens,
            // Always, because a text's bits must not depend on its padding.
            Sees::Text => usize::MAX,
        };
        rounds(device, qkv.dtype) && most >= 64 && shape.head_dim >= SIDE
    }

    fn shape(&self, qkv: Spec) -> cpu::Shape {
        let tokens = qkv.shape.dims()[1];
        let head_dim = qkv.shape.last() / (3 * self.heads);
        let others = tokens.saturating_sub(1);
        let [before, after] = match self.sees {
            Sees::Window(window) => [others.min(window - 1), 0],
            Sees::Past => [others, 0],
            Sees::All | Sees::Text => [others, others],
        };
        cpu::Shape { tokens, heads: self.heads, head_dim, before, after }
    }

    fn samples<'a>(&self, ins: &[&'a Buffer]) -> cpu::Samples<'a> {
        cpu::Samples { shape: self.shape(ins[0].spec()), lengths: ins.get(1).map(|lengths| lengths.as_slice()) }
    }
}

/// One case for each way to see.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let qkv = Input::normal(&[s.batch, s.tokens, 3 * s.dim()]);
    let case = |label, sees| Case::new(label, SelfAttention { heads: s.heads, sees }, vec![qkv.clone()]);
    let mut text = case("padded", Sees::Text);
    text.ins.push(Input::new(&[s.batch], Fill::Integers { below: s.tokens + 1 }));
    vec![case("window", Sees::Window(s.window)), case("causal", Sees::Past), case("full", Sees::All), text]
}

#[cfg(test)]
mod tests;
