//! Shared by both ways through the vocabulary: the op's inputs and outputs, and the tokens that count.

use super::LmHead;
use super::stream::{BLOCK, Sum};
use crate::matmul::bf16::{self, Left};
use crate::matmul::gemm::{Factor, gemm, packed_len};
use crate::matmul::mat::{Mat, MatMut};
use engine::Want;
use engine::simd::{self, Real};
use half::bf16 as Half;

/// The target of a token that the loss ignores.
pub const IGNORED: i32 = -1;

/// `hidden` [tokens, dim], `table` [vocab, dim], which may also be packed for the product that gives the logits,
/// `targets` [tokens], and `scale` [1] or [tokens].
#[derive(Clone, Copy)]
pub struct Inputs<'a, T> {
    pub head: LmHead,
    pub hidden: &'a [T],
    pub table: &'a [T],
    pub packed: Option<&'a [T]>,
    /// The table if products round their factors.
    pub rounded: Option<Rounded<'a>>,
    pub targets: &'a [i32],
    pub scale: &'a [T],
    pub dim: usize,
}

/// The table in bf16.
#[derive(Clone, Copy)]
pub struct Rounded<'a> {
    /// Packed for the product that gives the logits.
    pub logits: &'a [Half],
    /// Packed by [`pack_blocks`], or empty if no gradient of hidden states is wanted.
    pub blocks: &'a [Half],
}

/// Packs [`BLOCK`] rows of the table at a time for the product back to the hidden states.
pub fn pack_blocks<T: Real>(table: &[T], dim: usize, blocks: &mut [Half]) {
    for (rows, out) in table.chunks(BLOCK * dim).zip(blocks.chunks_mut(bf16::packed_len(BLOCK, dim))) {
        bf16::pack(Mat::new(rows, rows.len() / dim, dim), out);
    }
}

impl<T: Real> Inputs<'_, T> {
    pub fn vocab(&self) -> usize {
        self.table.len() / self.dim
    }

    /// Copies the hidden states of some tokens, row after row.
    pub fn gather(&self, tokens: &[usize], hidden: &mut [T]) {
        for (row, token) in hidden.chunks_exact_mut(self.dim).zip(tokens) {
            row.copy_from_slice(&self.hidden[token * self.dim..][..self.dim]);
        }
    }

    /// Columns first .. first + width of the logits of the tokens whose hidden states are the rows of `a`:
    /// logits[n, v] = Σ_i hidden[n, i]·table[v, i]. `first` is a multiple of a packed panel's width.
    pub fn logits(&self, a: Left<'_, T>, first: usize, width: usize, logits: MatMut<'_, T>) {
        if let Some(Rounded { logits: table, .. }) = self.rounded {
            let part = &table[bf16::packed_len(self.dim, first)..][..bf16::packed_len(self.dim, width)];
            return bf16::product(logits, a, part, Want::Write);
        }
        let Left::Plain(a) = a else { unreachable!("only products that round their factors pack them so") };
        let at = first * self.dim;
        let table = Mat::new(&self.table[at..], width, self.dim).transposed();
        let packed = self.packed.map(|packed| Factor::Packed(&packed[at..][..packed_len(self.dim, width)]));
        gemm(logits, a, packed.unwrap_or(Factor::Plain(table)), Want::Write);
    }

    /// hidden [n, dim] = (or +=) x [n, width] · rows first .. first + width of the table. If products round their factors, the
    /// rows are at most one [`BLOCK`].
    pub fn back(&self, x: Mat<'_, T>, first: usize, width: usize, hidden: MatMut<'_, T>, want: Want) {
        match self.rounded {
            Some(Rounded { blocks, .. }) => {
                let part = &blocks[bf16::packed_len(first, self.dim)..][..bf16::packed_len(width, self.dim)];
                bf16::product(hidden, x, part, want);
            }
            None => gemm(hidden, x, Mat::new(&self.table[first * self.dim..], width, self.dim), want),
        }
    }

    /// A number of the table as products read it.
    pub fn factor(&self, x: T) -> T {
        match self.rounded {
            Some(_) => T::from_f64(simd::round(x.to_f64() as f32).to_f64()),
            None => x,
        }
    }

    /// The factor of a token's cost.
    pub fn scale(&self, token: usize) -> T {
        if let [scale] = self.scale { *scale } else { self.scale[token] }
    }

    /// The divisor of a token's exponentials in the gradient of its logits, as a logarithm.
    pub fn divisor(&self, lse: T) -> T {
        match self.head {
            LmHead::CrossEntropy => lse,
            LmHead::ScoreEntropy => T::from_f64((self.vocab() as f64).ln()),
        }
    }

    /// g·exp(largest logit − divisor)
    pub fn share(&self, all: Sum<T>, g: T) -> T {
        match self.head {
            LmHead::CrossEntropy => g / all.sum,
            LmHead::ScoreEntropy => g * T::from_f64(all.largest.to_f64().exp() / self.vocab() as f64),
        }
    }

    /// The cost of a token before its factor.
    fn cost(&self, nll: T, lse: T) -> f64 {
        match self.head {
            LmHead::CrossEntropy => nll.to_f64(),
            LmHead::ScoreEntropy => {
                let log_z = lse.to_f64() - (self.vocab() as f64).ln();
                // Not exp(log Z) − 1, which cancels if the scores are normalised.
                nll.to_f64() + (log_z.exp_m1() - log_z)
            }
        }
    }

    /// The column of a token that is not ignored.
    ///
    /// # Panics
    /// If the target is invalid.
    pub fn target(&self, token: usize) -> usize {
        let (target, vocab) = (self.targets[token], self.vocab());
        usize::try_from(target)
            .ok()
            .filter(|&t| t < vocab)
            .unwrap_or_else(|| panic!("the target of token {token} is {target}, must be −1 or below {vocab}"))
    }
}

/// `loss` [1], `nll` and `lse` [tokens].
pub struct Outputs<'a, T> {
    pub loss: &'a mut [T],
    pub nll: &'a mut [T],
    pub lse: &'a mut [T],
}

impl<T: Real> Outputs<'_, T> {
    pub fn clear(&mut self) {
        self.nll.fill(T::ZERO);
        self.lse.fill(T::ZERO);
    }

    pub fn add_up(&mut self, ins: Inputs<'_, T>) {
        let counted = (0..self.nll.len()).filter(|&token| ins.targets[token] != IGNORED);
        let costs = counted.map(|token| (token, ins.cost(self.nll[token], self.lse[token])));
        self.loss[0] = T::from_f64(match ins.scale {
            [scale] => scale.to_f64() * costs.map(|(_, cost)| cost).sum::<f64>(),
            scale => costs.map(|(token, cost)| scale[token].to_f64() * cost).sum(),
        });
    }
}

/// Calls `f` for the tokens that have a target, N at a time.
pub fn for_each_group<const N: usize>(targets: &[i32], mut f: impl FnMut(&[usize])) {
    let mut active = (0..targets.len()).filter(|&token| targets[token] != IGNORED);
    let mut tokens = [0; N];
    loop {
        let mut n = 0;
        for (slot, token) in tokens.iter_mut().zip(&mut active) {
            *slot = token;
            n += 1;
        }
        if n == 0 {
            return;
        }
        f(&tokens[..n]);
    }
}
