//! Attention of every token to all K latents of its layer.
//!
//! The backward pass recomputes the probabilities: K·D multiply-adds per token. Stored ones would take an eighth of the
//! size of `q` at K = 8, D = 64, to write and to read, and `d_k` needs `q` anyway.

mod cpu;
pub(crate) mod cuda;

use crate::case::{Case, Input, Sizes};
use crate::lanes::wanted;
use crate::{check, cost};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `q [B, N, d], kv [B, K, 2d] → y [B, N, d]`: a row of `kv` is keys and values of all heads side by side; queries and
/// keys are already rotated.
///
/// - Formula: for each head `p_nj = softmax_j(q_n·k_j / √D)`, `y_n = Σ_j p_nj v_j`
/// - VJP: with `d_p_nj = d_y_n·v_j` and `d_s_nj = p_nj (d_p_nj − Σ_j p_nj d_p_nj) / √D`: `d_q_n = Σ_j d_s_nj k_j`,
///   `d_k_j = Σ_n d_s_nj q_n`, `d_v_j = Σ_n p_nj d_y_n`
/// - Source: Vaswani et al., arXiv 1706.03762; to latents as in Kong et al., "Latent Thought Models", arXiv 2502.01567
#[derive(Clone, Copy, Debug)]
pub struct CrossAttention {
    /// Heads H; D = d/H.
    pub heads: usize,
}

impl Op for CrossAttention {
    check::names!("cross_attention": q, kv);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("q", ins[0])?;
        check::rank("q", ins[0], 3)?;
        check::rank("kv", ins[1], 3)?;
        check::heads("q", ins[0], self.heads)?;
        let latents = ins[1].shape.dims()[1].max(1);
        check::is("kv", ins[1], dtype, &[ins[0].shape.dims()[0], latents, 2 * ins[0].shape.last()])?;
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[0, 1], &[])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let shape = self.shape(ins[0].spec(), ins[1].spec());
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, shape, ins[0], ins[1], &outs[0]);
        }
        with_real!(ins[0].dtype(), T => {
            cpu::forward::<T>(shape, ins[0].as_slice(), ins[1].as_slice(), outs[0].as_mut_slice());
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let ([want_q, want_kv], [d_q, d_kv]) = (wants, d) else { unreachable!("two inputs") };
        let wants = [*want_q, *want_kv];
        let shape = self.shape(ins[0].spec(), ins[1].spec());
        if let Device::Cuda(gpu) = cx.device {
            let known = [ins[0], ins[1], d_y];
            let numbers = cuda::scratch(shape, d_y.shape().dims()[0]);
            let partials = want_kv.is_wanted().then(|| cx.scratch_at(DType::F32, numbers));
            return cuda::backward(&**gpu, shape, known, wants, [d_q, d_kv], partials);
        }
        with_real!(d_y.dtype(), T => {
            let known = [ins[0], ins[1], d_y].map(|b| b.as_slice::<T>());
            let partials = if want_kv.is_wanted() { shape.partials(d_y.shape().dims()[0]) } else { 0 };
            let partials = cx.scratch::<T>(partials);
            cpu::backward(shape, known, wants, wanted(*want_q, d_q), wanted(*want_kv, d_kv), partials);
        })
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        let (shape, samples) = (self.shape(ins[0], ins[1]), ins[0].shape.dims()[0]);
        match device {
            _ if !pass.gives(1) => 0,
            Device::Cuda(_) => cuda::scratch(shape, samples) * DType::F32.size(),
            Device::Cpu(_) => shape.partials(samples) * ins[0].dtype.size(),
        }
    }

    /// Per token, head and latent: forward 4·D, an exponential and 4 around it; backward the same for the scores, 2·D for
    /// d_p, 5 for d_s, 2·D for d_q and 4·D for d_k and d_v.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let shape = self.shape(ins[0], ins[1]);
        let (pairs, head_dim) = (ins[0].shape.rows() * self.heads * shape.latents, shape.head_dim);
        let cost = cost::of(self, ins, pass, pairs * (4 * head_dim + 5), &[2 * pairs * head_dim, 4 * pairs * head_dim]);
        let backward = if cost::any_wanted(pass.wants()) { pairs * (4 * head_dim + 10) } else { 0 };
        cost + Cost { flops: backward as u64, bytes: 0 }
    }
}

impl CrossAttention {
    fn shape(&self, q: Spec, kv: Spec) -> cpu::Shape {
        cpu::Shape {
            tokens: q.shape.dims()[1],
            heads: self.heads,
            head_dim: q.shape.last() / self.heads,
            latents: kv.shape.dims()[1],
        }
    }
}

/// One case: a layer's tokens and latents.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let q = Input::normal(&[s.batch, s.tokens, s.dim()]);
    let kv = Input::normal(&[s.batch, s.latents, 2 * s.dim()]);
    vec![Case::new("layer", CrossAttention { heads: s.heads }, vec![q, kv])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, refuses, sizes};

    /// The definition, one number at a time.
    fn formula(s: &Sizes, q: &[f64], kv: &[f64]) -> Vec<f64> {
        let d = s.dim();
        let y = |at: usize| {
            let (sample, column) = (at / (s.tokens * d), at % d);
            let head = column - column % s.head_dim..column - column % s.head_dim + s.head_dim;
            let latent = |j: usize, column: usize| kv[(sample * s.latents + j) * 2 * d + column];
            let weight = |j: usize| {
                let score: f64 = head.clone().map(|c| q[at - column + c] * latent(j, c)).sum();
                (score / (s.head_dim as f64).sqrt()).exp()
            };
            let total: f64 = (0..s.latents).map(weight).sum();
            (0..s.latents).map(|j| weight(j) / total * latent(j, d + column)).sum::<f64>()
        };
        (0..q.len()).map(y).collect()
    }

    #[test]
    fn matches_the_formula() {
        // Whole and cut chunks.
        let larger = [[2 * cpu::CHUNK + 37, 8, 2, 16], [cpu::CHUNK, 19, 1, 34], [70, 1, 3, 2]];
        let larger =
            larger.map(|[tokens, latents, heads, head_dim]| Sizes { tokens, latents, heads, head_dim, ..sizes()[0] });
        check_all(cases, &larger, |s, _, ins| formula(s, &ins[0], &ins[1]));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let op = CrossAttention { heads: 2 };
        let heads = "q is f32[2, 5, 7], its last size must be a multiple of 2 heads";
        refuses(&op, "f32[2, 5, 7] f32[2, 3, 14]", heads);
        refuses(&op, "f32[2, 5, 8] f32[2, 0, 16]", "kv is f32[2, 0, 16], must be f32[2, 1, 16]");
        refuses(&op, "f32[2, 5, 8] f32[2, 16]", "kv is f32[2, 16], must have 3 dimensions");
    }
}
