//! Attention of every token to all K latents of its layer.
//!
//! Nothing is kept for the backward pass. All K scores of a token are at hand there, so that its softmax costs the K·D
//! multiply-adds of the scores once more. Kept probabilities would be an eighth of the size of `q` at K = 8, D = 64, written
//! and read; and `q`, from which they are computed, has to be read in any case for `d_k`.

mod cpu;
pub(crate) mod cuda;

use crate::case::{Case, Fill, Input, Sizes};
use crate::{check, cost};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `q [B, N, d], kv [B, K, 2d] → y [B, N, d]`: a row of `kv` is keys and values of all heads side by side; queries and
/// keys are rotated already.
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
    fn name(&self) -> &'static str {
        "cross_attention"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["q", "kv"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        let dtype = check::real("q", ins[0])?;
        check::rank("q", ins[0], 3)?;
        check::rank("kv", ins[1], 3)?;
        check::heads("q", ins[0], self.heads)?;
        let latents = ins[1].shape.dims()[1].max(1);
        check::is("kv", ins[1], dtype, &[ins[0].shape.dims()[0], latents, 2 * ins[0].shape.last()])?;
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        if wants.iter().any(|want| want.is_wanted()) { Reads::of(&[0, 1], &[]) } else { Reads::default() }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let shape = self.shape(ins[0].spec(), ins[1].spec());
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, shape, ins[0], ins[1], &mut outs[0]);
        }
        with_real!(ins[0].dtype(), T => {
            cpu::forward::<T>(shape, ins[0].as_slice(), ins[1].as_slice(), outs[0].as_mut_slice());
        })
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        _outs: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        let ([want_q, want_kv], [d_q, d_kv]) = (wants, d_ins) else { unreachable!("two inputs") };
        let wants = [*want_q, *want_kv];
        if wants == [Want::Skip; 2] {
            return;
        }
        let shape = self.shape(ins[0].spec(), ins[1].spec());
        if let Device::Cuda(gpu) = cx.device {
            let known = cuda::Known { q: ins[0], kv: ins[1], d_y: d_out };
            let partials = cuda::scratch(shape, d_out.shape().dims()[0]);
            let partials = want_kv.is_wanted().then(|| cx.scratch_at(DType::F32, partials));
            return cuda::backward(&**gpu, shape, &known, wants, d_q, d_kv, partials);
        }
        with_real!(d_out.dtype(), T => {
            let known = cpu::Known::<T> { q: ins[0].as_slice(), kv: ins[1].as_slice(), d_y: d_out.as_slice() };
            let partials = if want_kv.is_wanted() { shape.partials(d_out.shape().dims()[0]) } else { 0 };
            let partials = cx.scratch::<T>(partials);
            cpu::backward(shape, known, wants, wanted(d_q, *want_q), wanted(d_kv, *want_kv), partials);
        })
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        let (shape, samples) = (self.shape(ins[0], ins[1]), ins[0].shape.dims()[0]);
        match (device, pass) {
            (_, Pass::Forward) => 0,
            (Device::Cuda(_), Pass::Vjp(wants) | Pass::Fused(wants)) if wants[1].is_wanted() => {
                cuda::scratch(shape, samples) * DType::F32.size()
            }
            (Device::Cpu, Pass::Vjp(wants) | Pass::Fused(wants)) if wants[1].is_wanted() => {
                shape.partials(samples) * ins[0].dtype.size()
            }
            _ => 0,
        }
    }

    /// Per token, head and latent: forward 4·D, an exponential and 4 around it; backward the same for the scores, 2·D for
    /// d_p, 5 for d_s, 2·D for d_q and 4·D for d_k and d_v.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let [q, kv] = ins else { unreachable!("two inputs") };
        let shape = self.shape(*q, *kv);
        let pairs = (q.shape.rows() * self.heads * shape.latents) as u64;
        let head_dim = shape.head_dim as u64;
        let forward = Cost { flops: pairs * (4 * head_dim + 5), bytes: (2 * q.bytes() + kv.bytes()) as u64 };
        cost::of_pass(pass, forward, |wants| {
            if wants.iter().all(|want| !want.is_wanted()) {
                return Cost::default();
            }
            let per_pair = 4 * head_dim
                + 10
                + if wants[0].is_wanted() { 2 * head_dim } else { 0 }
                + if wants[1].is_wanted() { 4 * head_dim } else { 0 };
            Cost { flops: pairs * per_pair, bytes: (2 * q.bytes() + kv.bytes()) as u64 }
                + cost::store(wants[0], q.shape.numel(), q.bytes())
                + cost::store(wants[1], kv.shape.numel(), kv.bytes())
        })
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

/// The elements of a gradient, none when it is not wanted.
fn wanted<T: engine::Element>(gradient: &mut Buffer, want: Want) -> &mut [T] {
    if want.is_wanted() { gradient.as_mut_slice() } else { &mut [] }
}

/// One case: a layer's tokens and latents.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let q = Input::new(&[s.batch, s.tokens, s.dim()], Fill::NORMAL);
    let kv = Input::new(&[s.batch, s.latents, 2 * s.dim()], Fill::NORMAL);
    vec![Case::new("layer", CrossAttention { heads: s.heads }, vec![q, kv])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use engine::rng::Stream;
    use engine::simd::for_each_level;

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
        for s in testing::sizes() {
            for case in cases(&s) {
                testing::check(&case, |ins| formula(&s, &ins[0], &ins[1]));
            }
        }
    }

    /// Several chunks, whole and cut: values, gradients along a direction, and that a sample's numbers do not depend on
    /// the others, the threads or the instruction set.
    #[test]
    fn chunks_match_the_formula() {
        for (tokens, latents, heads, head_dim) in
            [(2 * cpu::CHUNK + 37, 8, 2, 16), (cpu::CHUNK, 19, 1, 34), (70, 1, 3, 2)]
        {
            let s = Sizes { batch: 2, tokens, latents, heads, head_dim, ..testing::sizes()[0] };
            let case = &cases(&s)[0];
            let ins = case.buffers(DType::F64, 3);
            let ins: Vec<_> = ins.iter().collect();
            let outs = testing::forward(&*case.op, &ins);
            let values: Vec<_> = ins.iter().map(|x| x.to_f64()).collect();
            assert!(testing::distance(&outs[0].to_f64(), &formula(&s, &values[0], &values[1])) < 1e-13, "{s:?}");

            let normal = |site, len| {
                let mut x = vec![0.0; len];
                Stream::new(8, site).fill_normal(&mut x, |x| x);
                x
            };
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let cotangent = normal(0, outs[0].len());
            let d_y = Buffer::from_f64(DType::F64, outs[0].shape().dims(), &cotangent);
            let d_ins = testing::vjp(&*case.op, &[Want::Write; 2], &ins, &outs, &d_y);
            for i in [0, 1] {
                let direction = normal(1, values[i].len());
                let moved = |step: f64| {
                    let mut moved = values.clone();
                    moved[i].iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d);
                    dot(&formula(&s, &moved[0], &moved[1]), &cotangent)
                };
                let h = 1e-4;
                let expected = (8.0 * (moved(h) - moved(-h)) - (moved(2.0 * h) - moved(-2.0 * h))) / (12.0 * h);
                let got = dot(&d_ins[i].to_f64(), &direction);
                assert!((got - expected).abs() < 1e-7 * expected.abs().max(1.0), "{s:?} {i}: {got} {expected}");
            }
        }
    }

    #[test]
    fn bits_depend_on_nothing_else() {
        let s = Sizes { batch: 2, tokens: cpu::CHUNK + 45, latents: 5, head_dim: 18, ..testing::sizes()[0] };
        let case = &cases(&s)[0];
        let ins = case.buffers(DType::F32, 3);
        let run = |ins: &[&Buffer]| {
            let outs = testing::forward(&*case.op, ins);
            let d_ins = testing::vjp(&*case.op, &[Want::Write; 2], ins, &outs, &outs[0]);
            [&outs[0], &d_ins[0], &d_ins[1]].map(|x| x.as_slice::<f32>().to_vec())
        };
        let all = run(&[&ins[0], &ins[1]]);
        for_each_level(|level| {
            for threads in [1, 3] {
                assert!(testing::with_threads(threads, || run(&[&ins[0], &ins[1]])) == all, "{level}, {threads}");
            }
        });
        for sample in 0..s.batch {
            let part = |x: &Buffer, dims: &[usize]| {
                let len = dims.iter().product();
                Buffer::from_slice(dims, &x.as_slice::<f32>()[sample * len..][..len])
            };
            let (q, kv) = (part(&ins[0], &[1, s.tokens, s.dim()]), part(&ins[1], &[1, s.latents, 2 * s.dim()]));
            for (all, alone) in all.iter().zip(run(&[&q, &kv])) {
                assert!(all[sample * alone.len()..][..alone.len()] == alone[..]);
            }
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let f32 = |dims: &[usize]| Spec::new(DType::F32, dims);
        let error =
            |q: &[usize], kv: &[usize]| CrossAttention { heads: 2 }.infer(&[f32(q), f32(kv)]).unwrap_err().to_string();
        assert_eq!(error(&[2, 5, 7], &[2, 3, 14]), "q is f32[2, 5, 7], its last size must be a multiple of 2 heads");
        assert_eq!(error(&[2, 5, 8], &[1, 3, 16]), "kv is f32[1, 3, 16], must be f32[2, 3, 16]");
        assert_eq!(error(&[2, 5, 8], &[2, 0, 16]), "kv is f32[2, 0, 16], must be f32[2, 1, 16]");
        assert_eq!(error(&[2, 5, 8], &[2, 16]), "kv is f32[2, 16], must have 3 dimensions");
    }
}
