//! The head, a chunk of tokens at a time. Tokens whose target is ignored never enter a chunk.

use super::inputs::{Inputs, Outputs, for_each_group};
use super::stream::{self, Absorb, BLOCK, Sum};
use crate::lanes::split;
use crate::matmul::bf16;
use crate::matmul::gemm::gemm;
use crate::matmul::mat::{Mat, MatMut};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};
use half::bf16 as Half;

/// Tokens whose logits exist at the same time. With a table that every product packs, at V = 50,258 and d = 512 on
/// AVX-512, 256 took 15 % less time than 128. 512 gained at most another half of that and needs 103 MB of logits, as
/// much as the table.
pub const CHUNK: usize = 256;

/// `d_hidden` [tokens, dim] and `d_table` [vocab, dim], empty where they are not wanted.
pub struct Gradients<'a, T> {
    pub d_hidden: (Want, &'a mut [T]),
    pub d_table: (Want, &'a mut [T]),
}

/// Elements of working memory; more is for a chunk's hidden states in bf16.
pub fn scratch(tokens: usize, dim: usize, vocab: usize) -> usize {
    tokens.min(CHUNK) * (2 * dim + row_stride(vocab))
}

/// The distance between two tokens' logits: every row starts on a cache line.
fn row_stride(vocab: usize) -> usize {
    vocab.next_multiple_of(LANES)
}

pub fn forward<T: Real>(ins: Inputs<T>, memory: &mut [T], mut outs: Outputs<T>) {
    outs.clear();
    stream::run(ins, memory, &mut outs, (Want::Skip, &mut []));
    outs.add_up(ins);
}

pub fn vjp<T: Real>(ins: Inputs<T>, memory: &mut [T], lse: &[T], d_loss: T, mut d_ins: Gradients<T>) {
    // Rows are added to d_hidden: those of ignored tokens stay zero.
    clear(&mut d_ins.d_hidden);
    for_each_chunk(ins, memory, |mut chunk| {
        chunk.logits_to_gradient(Some(lse), d_loss);
        chunk.backward(&mut d_ins);
    });
    // If no chunk has written a gradient.
    clear(&mut d_ins.d_table);
}

pub fn forward_vjp<T: Real>(ins: Inputs<T>, memory: &mut [T], mut outs: Outputs<T>, mut d_ins: Gradients<T>) {
    outs.clear();
    clear(&mut d_ins.d_hidden);
    if d_ins.d_table.0.is_wanted() {
        for_each_chunk(ins, memory, |mut chunk| {
            chunk.logits_to_gradient(None, T::ONE);
            for (row, &token) in chunk.tokens.iter().enumerate() {
                (outs.nll[token], outs.lse[token]) = (chunk.nll[row], chunk.lse[row]);
            }
            chunk.backward(&mut d_ins);
        });
    } else {
        let (want, d_hidden) = &mut d_ins.d_hidden;
        stream::run(ins, memory, &mut outs, (*want, d_hidden));
    }
    outs.add_up(ins);
    clear(&mut d_ins.d_table);
}

/// Clears a gradient that should be written but was not.
fn clear<T: Real>((want, gradient): &mut (Want, &mut [T])) {
    if *want == Want::Write {
        gradient.fill(T::ZERO);
    }
}

/// The indices of n tokens, ascending, with `hidden` and `d_hidden` [n, dim], and `logits` [n, row_stride], which
/// become their gradients.
struct Chunk<'a, T> {
    ins: Inputs<'a, T>,
    tokens: &'a [usize],
    hidden: &'a mut [T],
    d_hidden: &'a mut [T],
    logits: &'a mut [T],
    /// Memory for `hidden` in bf16.
    packed: &'a mut [Half],
    lse: [T; CHUNK],
    nll: [T; CHUNK],
}

/// Calls `f` for the tokens that have a target, [`CHUNK`] at a time.
fn for_each_chunk<T: Real>(ins: Inputs<T>, memory: &mut [T], mut f: impl FnMut(Chunk<T>)) {
    let (dim, vocab) = (ins.dim, ins.vocab());
    let most = ins.targets.len().min(CHUNK);
    let (memory, rest) = memory.split_at_mut(scratch(ins.targets.len(), dim, vocab));
    let packed: &mut [Half] = bytemuck::cast_slice_mut(rest);
    let [hidden, d_hidden, logits] = split(memory, [most * dim, most * dim, most * row_stride(vocab)]);
    for_each_group::<CHUNK>(ins.targets, |tokens| {
        let n = tokens.len();
        let (hidden, d_hidden, logits) =
            (&mut hidden[..n * dim], &mut d_hidden[..n * dim], &mut logits[..n * row_stride(vocab)]);
        ins.gather(tokens, hidden);
        let all = MatMut::with_stride(logits, n, vocab, row_stride(vocab));
        ins.logits(Mat::new(hidden, n, dim).into(), 0, vocab, all);
        f(Chunk {
            ins,
            tokens,
            hidden,
            d_hidden,
            logits,
            packed: &mut *packed,
            lse: [T::ZERO; CHUNK],
            nll: [T::ZERO; CHUNK],
        });
    });
}

impl<T: Real> Chunk<'_, T> {
    /// Turns logits into their gradient. Without a given lse it first computes a row's loss, while the row is in the cache.
    fn logits_to_gradient(&mut self, given: Option<&[T]>, d_loss: T) {
        let (n, vocab) = (self.tokens.len(), self.ins.vocab());
        parallel::chunks3(
            (self.logits, row_stride(vocab)),
            (&mut self.lse[..n], 1),
            (&mut self.nll[..n], 1),
            |row, logits, lse, nll| {
                let (logits, target) = (&mut logits[..vocab], self.ins.target(self.tokens[row]));
                if let Some(given) = given {
                    // The score entropy needs none.
                    lse[0] = given.get(self.tokens[row]).copied().unwrap_or(T::ZERO);
                } else {
                    // Block by block, for the same bits as without a gradient.
                    let all = logits
                        .chunks_mut(BLOCK)
                        .fold(Sum::NONE, |before, logits| simd::dispatch(Absorb { logits, before, to_exps: false }).0);
                    (lse[0], nll[0]) = all.losses(logits[target]);
                }
                let g = self.ins.scale(self.tokens[row]) * d_loss;
                simd::dispatch(Exponentials { logits, divisor: self.ins.divisor(lse[0]), g });
                logits[target] -= g;
            },
        );
    }

    /// Computes the gradients of the hidden states and the table from that of the logits.
    fn backward(&mut self, d_ins: &mut Gradients<T>) {
        let (n, dim, vocab) = (self.tokens.len(), self.ins.dim, self.ins.vocab());
        let (want, d_hidden) = &mut d_ins.d_hidden;
        if want.is_wanted() {
            // d_hidden[n, i] = Σ_v d_logits[n, v]·table[v, i]
            let step = if self.ins.rounded.is_some() { BLOCK } else { vocab };
            for first in (0..vocab).step_by(step) {
                let width = step.min(vocab - first);
                let part = Mat::with_strides(&self.logits[first..], n, width, row_stride(vocab), 1);
                let want = if first == 0 { Want::Write } else { Want::Add };
                self.ins.back(part, first, width, MatMut::new(self.d_hidden, n, dim), want);
            }
            for (row, &token) in self.d_hidden.chunks_exact(dim).zip(self.tokens) {
                d_hidden[token * dim..][..dim].iter_mut().zip(row).for_each(|(d, &x)| *d += x);
            }
        }
        let d_logits = Mat::with_strides(self.logits, n, vocab, row_stride(vocab), 1);
        let (want, d_table) = &mut d_ins.d_table;
        if want.is_wanted() {
            // d_table[v, i] = Σ_n d_logits[n, v]·hidden[n, i], where the first chunk overwrites
            let accumulate = std::mem::replace(want, Want::Add);
            let (c, a, b) = (MatMut::new(d_table, vocab, dim), d_logits.transposed(), Mat::new(self.hidden, n, dim));
            if self.ins.rounded.is_some() {
                let packed = &mut self.packed[..bf16::packed_len(n, dim)];
                bf16::pack(b, packed);
                bf16::product(c, a, packed, accumulate);
            } else {
                gemm(c, a, b, accumulate);
            }
        }
    }
}

/// x ← g·exp(x − divisor)
struct Exponentials<'a, T> {
    logits: &'a mut [T],
    divisor: T,
    g: T,
}

impl<T: Real> Kernel for Exponentials<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let (divisor, g) = (T::Lanes::<I>::splat(self.divisor), T::Lanes::<I>::splat(self.g));
        let (body, tail) = self.logits.as_chunks_mut::<LANES>();
        for x in body {
            T::Lanes::<I>::load(x).sub(divisor).exp().mul(g).store(x);
        }
        T::Lanes::<I>::load_partial(tail, T::ZERO).sub(divisor).exp().mul(g).store_partial(tail);
    }
}
