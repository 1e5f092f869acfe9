//! Computes the head by blocks of the vocabulary whose logits fit into the cache. A thread takes a part of the
//! tokens through the whole vocabulary: if threads waited for each other at every block, two threads would lose a
//! quarter of their time.
//!
//! The softmax needs the sum over the whole vocabulary, which is known only at the end. Until then the gradient of the
//! hidden state accumulates Σ_v exp(logit[v] − largest)·table[v] with the largest logit so far, and is scaled down
//! whenever a larger one comes, as in online softmax (Milakov and Gimelshein, 2018). So a part reads the table once for
//! both products. The gradient of the table cannot be computed in this way: each of its rows belongs to one column,
//! which is visited only once.

use super::inputs::{Inputs, Outputs, for_each_group};
use crate::lanes::split;
use crate::matmul::bf16::{self, Left};
use crate::matmul::mat::{Mat, MatMut};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real, SIDE};
use engine::{Want, parallel};

/// Columns of a block of the vocabulary, a multiple of a packed panel's width.
pub const BLOCK: usize = 256;
/// Most tokens of a group.
pub const GROUP: usize = 1024;
/// Fewest tokens of a part: for fewer, packing the table costs more than waiting.
const PART: usize = 64;
/// Most tokens of a part where products round their factors. They are so fast that they would wait for memory: at d = 512
/// the sums, hidden states and logits of more tokens do not fit into an L2 of 2 MiB beside a block of the table.
const ROUNDED_PART: usize = 256;
/// Tokens that a thread takes at a time when all threads work on one part.
const ROWS: usize = 16;

/// The running sum over a token's logits.
#[derive(Clone, Copy)]
pub struct Sum<T> {
    /// The largest of them.
    pub largest: T,
    /// Σ exp(logit − largest); NaN if any is not finite.
    pub sum: T,
}

impl<T: Real> Sum<T> {
    /// Before the first logit.
    pub const NONE: Self = Self { largest: T::NEG_INFINITY, sum: T::ZERO };

    /// lse and nll of a token whose target has this logit.
    pub fn losses(self, at_target: T) -> (T, T) {
        let log_sum = T::from_f64(self.sum.to_f64().ln());
        // Not lse − logit, which cancels if the model is confident.
        (self.largest + log_sum, log_sum + (self.largest - at_target))
    }
}

/// Adds the next logits of a token to the sum. With `to_exps` they become exp(logit − largest).
pub struct Absorb<'a, T> {
    pub logits: &'a mut [T],
    pub before: Sum<T>,
    pub to_exps: bool,
}

impl<T: Real> Kernel for Absorb<'_, T> {
    /// Returns the new sum, and exp(largest before − largest).
    type Output = (Sum<T>, T);

    #[inline(always)]
    fn run<I: Isa>(self) -> (Sum<T>, T) {
        let (zero, any) = (T::Lanes::<I>::zero(), self.logits[0]);
        let (body, tail) = self.logits.as_chunks_mut::<LANES>();
        // 0·x is zero or NaN. The maximum may lose a NaN, and exp turns −∞ into zero.
        let mut most = T::Lanes::<I>::load_partial(tail, any);
        let mut not_finite = most.mul_add(zero, zero);
        for x in &*body {
            let x = T::Lanes::<I>::load(x);
            most = x.max(most);
            not_finite = x.mul_add(zero, not_finite);
        }
        let largest = Real::max(most.max_lane(), self.before.largest);
        let shift = T::Lanes::<I>::splat(largest);
        let last = T::Lanes::<I>::load_partial(tail, T::NEG_INFINITY).sub(shift).exp();
        let mut sum = last;
        for x in body {
            let exp = T::Lanes::<I>::load(x).sub(shift).exp();
            if self.to_exps {
                exp.store(x);
            }
            sum = sum.add(exp);
        }
        if self.to_exps {
            last.store_partial(tail);
        }
        let factor = T::Lanes::<I>::splat(self.before.largest).sub(shift).exp().max_lane();
        let sum = Real::mul_add(self.before.sum, factor, sum.sum() + not_finite.sum());
        (Sum { largest, sum }, factor)
    }
}

/// Elements of working memory for a token: its sum, its hidden state and its logits, and its hidden state in bf16 if products
/// round their factors.
fn per_token(dim: usize, rounds: bool) -> usize {
    2 * dim + BLOCK + if rounds { bf16::packed_len(dim, SIDE) / SIDE / 2 } else { 0 }
}

/// Elements of working memory.
pub fn scratch(tokens: usize, dim: usize, rounds: bool) -> usize {
    let most = tokens.min(GROUP);
    most.next_multiple_of(SIDE) * per_token(dim, rounds) + 3 * most
}

/// The forward pass, together with the gradient of `hidden` if it is wanted.
pub fn run<T: Real>(ins: Inputs<T>, memory: &mut [T], outs: &mut Outputs<T>, d_hidden: (Want, &mut [T])) {
    let (dim, most) = (ins.dim, ins.targets.len().min(GROUP));
    let rounds = ins.rounded.is_some();
    let (per_token, largest_part) = (per_token(dim, rounds), if rounds { ROUNDED_PART } else { GROUP });
    let (want, d_hidden) = d_hidden;
    let [memory, rows] = split(memory, [most.next_multiple_of(SIDE) * per_token, 3 * most]);
    for_each_group::<GROUP>(ins.targets, |tokens| {
        let n = tokens.len();
        let rows = rows[..3 * n].as_chunks_mut::<3>().0;
        let memory = &mut memory[..n.next_multiple_of(SIDE) * per_token];
        let size = match n.div_ceil(parallel::threads()) {
            // About equal parts, about as many for each thread.
            size if size >= PART => size.div_ceil(size.div_ceil(largest_part)),
            _ => n,
        };
        let size = size.next_multiple_of(SIDE);
        parallel::chunks2(rows, size, memory, size * per_token, |i, rows, memory| {
            let tokens = &tokens[i * size..][..rows.len()];
            let mut sum_up = || Part::new(ins, tokens, rows, want.is_wanted(), memory).sum_up();
            if size < n { parallel::alone(sum_up) } else { sum_up() }
        });
        for (row, &token) in tokens.iter().enumerate() {
            let [largest, sum, at_target] = rows[row];
            let all = Sum { largest, sum };
            (outs.lse[token], outs.nll[token]) = all.losses(at_target);
            if want.is_wanted() {
                let target = &ins.table[ins.target(token) * dim..][..dim];
                let g = ins.scale(token);
                let share = ins.share(all, g);
                let gathered = &memory[row / size * size * per_token + row % size * dim..];
                let d = &mut d_hidden[token * dim..][..dim];
                for ((d, &sum), &target) in d.iter_mut().zip(gathered).zip(target) {
                    *d += share * sum - g * ins.factor(target);
                }
            }
        }
    });
}

/// Some tokens of a group: `gathered` [n, dim] = Σ_v exp(logit − largest)·table[v] or nothing, their hidden states [n, dim],
/// `logits` [n, width of a block], and of each token in `rows` the largest logit, the sum, and the logit of the target.
struct Part<'a, T> {
    ins: Inputs<'a, T>,
    tokens: &'a [usize],
    hidden: Left<'a, T>,
    gathered: &'a mut [T],
    logits: &'a mut [T],
    rows: &'a mut [[T; 3]],
}

impl<'a, T: Real> Part<'a, T> {
    /// `wanted`: the gradient of the hidden states.
    fn new(ins: Inputs<'a, T>, tokens: &'a [usize], rows: &'a mut [[T; 3]], wanted: bool, memory: &'a mut [T]) -> Self {
        let (n, dim) = (tokens.len(), ins.dim);
        let (gathered, memory) = memory.split_at_mut(n * dim);
        let (hidden, memory) = memory.split_at_mut(n * dim);
        let (logits, packed) = memory.split_at_mut(n * BLOCK);
        ins.gather(tokens, hidden);
        let hidden = match ins.rounded {
            Some(_) => bf16::pack_left(Mat::new(hidden, n, dim), bytemuck::cast_slice_mut(packed)),
            None => Left::Plain(Mat::new(hidden, n, dim)),
        };
        Self { ins, tokens, hidden, gathered: if wanted { gathered } else { &mut [] }, logits, rows }
    }

    fn sum_up(&mut self) {
        self.rows.fill([T::NEG_INFINITY, T::ZERO, T::ZERO]);
        for first in (0..self.ins.vocab()).step_by(BLOCK) {
            self.block(first, BLOCK.min(self.ins.vocab() - first));
        }
    }

    /// Columns first .. first + width of the vocabulary.
    fn block(&mut self, first: usize, width: usize) {
        let (ins, n, dim) = (self.ins, self.tokens.len(), self.ins.dim);
        let logits = &mut self.logits[..n * width];
        ins.logits(self.hidden, first, width, MatMut::new(logits, n, width));
        let (tokens, wanted) = (self.tokens, !self.gathered.is_empty());
        let absorb = |row: usize, logits: &mut [T], [largest, sum, at_target]: &mut [T; 3]| {
            let target = ins.target(tokens[row]);
            if (first..first + width).contains(&target) {
                *at_target = logits[target - first];
            }
            let before = Sum { largest: *largest, sum: *sum };
            let (after, factor) = simd::dispatch(Absorb { logits, before, to_exps: wanted });
            (*largest, *sum) = (after.largest, after.sum);
            factor
        };
        let (logits_rows, gathered_rows) = ((&mut *logits, ROWS * width), (&mut *self.gathered, ROWS * dim));
        parallel::chunks3(logits_rows, (self.rows, ROWS), gathered_rows, |chunk, logits, rows, gathered| {
            let mut gathered = gathered.chunks_exact_mut(dim);
            for (i, (logits, row)) in logits.chunks_exact_mut(width).zip(rows).enumerate() {
                let factor = absorb(chunk * ROWS + i, logits, row);
                let Some(gathered) = gathered.next() else { continue };
                // Before the first block the sums are empty.
                if first > 0 && factor != T::ONE {
                    gathered.iter_mut().for_each(|x| *x *= factor);
                }
            }
        });
        if !wanted {
            return;
        }
        let accumulate = if first == 0 { Want::Write } else { Want::Add };
        ins.back(Mat::new(logits, n, width), first, width, MatMut::new(self.gathered, n, dim), accumulate);
    }
}
