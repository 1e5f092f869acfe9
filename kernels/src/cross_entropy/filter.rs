//! The head with a filter for gradients that are as good as nothing (as in Wijmans et al., "Cut Your Losses in
//! Large-Vocabulary Language Models", arXiv 2411.09009).
//!
//! A trained model gives nearly all of the vocabulary next to no probability. Where `|d_logits[n, v]|` is below the threshold
//! times |scale|, it is taken for zero, and vocabulary entries of which that holds for all tokens of a chunk take no part in
//! the product back to the hidden state:
//!
//! ```text
//! |error of d_hidden[n, i]| ≤ |scale| · Σ_{v filtered} p[n, v] · |table[v, i]| ≤ |scale| · threshold · V · max |table|
//! ```
//!
//! What is filtered for a token depends on that token only, so that its bits do not depend on its batch. The loss is exact.
//! Where the gradient of the table is wanted too, nothing is filtered; nor on a GPU.

use crate::matmul::gemm::{Accumulate, Mat, MatMut, gemm};
use engine::parallel;
use engine::simd::{self, Isa, Kernel, Real};

/// Rows of the table that are gathered for one product.
const GATHERED: usize = 4096;
/// Tokens that one thread looks through at a time.
const ROWS: usize = 32;

/// Elements of working memory for the filter.
pub fn scratch(tokens: usize, dim: usize, vocab: usize) -> usize {
    GATHERED.min(vocab) * dim + tokens.min(super::cpu::CHUNK).div_ceil(ROWS) * vocab
}

/// The gradients of some tokens' logits, rows `stride` apart.
pub struct Logits<'a, T> {
    pub data: &'a mut [T],
    pub tokens: usize,
    pub stride: usize,
}

/// d_hidden [tokens, dim] = d_logits·table without the elements of d_logits below `limit`. Spoils d_logits.
pub fn product<T: Real>(
    d_hidden: &mut [T],
    logits: Logits<'_, T>,
    table: &[T],
    dim: usize,
    limit: T,
    memory: &mut [T],
) {
    let Logits { data, tokens, stride } = logits;
    let vocab = table.len() / dim;
    let (rows, marks) = memory.split_at_mut(GATHERED.min(vocab) * dim);
    let marks = &mut bytemuck::cast_slice_mut::<T, i32>(marks)[..tokens.div_ceil(ROWS) * vocab];
    parallel::chunks2(data, ROWS * stride, marks, vocab, |_, rows, marks| {
        simd::dispatch(Mark { rows, stride, limit, marks });
    });
    let (list, others) = marks.split_at_mut(vocab);
    for other in others.chunks_exact(vocab) {
        list.iter_mut().zip(other).for_each(|(mark, other)| *mark |= other);
    }
    let mut count = 0;
    for v in 0..vocab {
        if list[v] != 0 {
            list[count] = v as i32;
            count += 1;
        }
    }
    let list = &list[..count];
    if count > vocab / 2 {
        // The zeros change no sum.
        let a = Mat::with_strides(data, tokens, vocab, stride, 1);
        return gemm(MatMut::new(d_hidden, tokens, dim), a, Mat::new(table, vocab, dim), Accumulate::Write);
    }
    d_hidden.fill(T::ZERO);
    parallel::chunks(data, stride, |_, row| {
        for (to, &v) in list.iter().enumerate() {
            row[to] = row[v as usize];
        }
    });
    for (block, list) in list.chunks(GATHERED).enumerate() {
        let rows = &mut rows[..list.len() * dim];
        parallel::chunks(rows, ROWS * dim, |chunk, rows| {
            for (row, &v) in rows.chunks_exact_mut(dim).zip(&list[chunk * ROWS..]) {
                row.copy_from_slice(&table[v as usize * dim..][..dim]);
            }
        });
        let a = Mat::with_strides(&data[block * GATHERED..], tokens, list.len(), stride, 1);
        gemm(MatMut::new(d_hidden, tokens, dim), a, Mat::new(rows, list.len(), dim), Accumulate::Add);
    }
}

/// Sets to zero what is below the limit, and marks the columns where something is not. A NaN is not.
struct Mark<'a, T> {
    rows: &'a mut [T],
    stride: usize,
    limit: T,
    marks: &'a mut [i32],
}

impl<T: Real> Kernel for Mark<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { rows, stride, limit, marks } = self;
        marks.fill(0);
        for row in rows.chunks_mut(stride) {
            for (x, mark) in row.iter_mut().zip(marks.iter_mut()) {
                let counts = !(*x < limit && -limit < *x);
                *x = if counts { *x } else { T::ZERO };
                *mark |= i32::from(counts);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LmHead, cases};
    use super::*;
    use crate::case::Sizes;
    use crate::cross_entropy::tests::fused_by;
    use crate::testing::{forward, vjp, with_threads};
    use engine::{Buffer, DType, Op, Want};

    const WANTS: [Want; 4] = [Want::Write, Want::Skip, Want::Skip, Want::Skip];

    /// Logits that differ as much as those of a trained model.
    fn inputs(dtype: DType, tokens: usize) -> Vec<Buffer> {
        let sizes =
            Sizes { batch: 2, tokens, heads: 1, head_dim: 24, window: 1, latents: 1, ffn: 1, vocab: GATHERED * 2 + 77 };
        let mut ins = cases(&sizes)[1].buffers(dtype, 3);
        let sharp: Vec<f64> = ins[0].to_f64().iter().map(|x| 6.0 * x).collect();
        ins[0].set_f64(&sharp);
        ins
    }

    fn d_hidden(op: &dyn Op, ins: &[Buffer]) -> Buffer {
        let ins: Vec<_> = ins.iter().collect();
        let d_loss = Buffer::from_f64(ins[0].dtype(), &[1], &[-1.5]);
        vjp(op, &WANTS, &ins, &forward(op, &ins), &d_loss).swap_remove(0)
    }

    #[test]
    fn the_error_is_within_its_bound() {
        for dtype in [DType::F32, DType::F64] {
            let ins = inputs(dtype, 21);
            let exact = d_hidden(&LmHead::EXACT, &ins);
            let (scale, table) = (ins[3].to_f64()[0] * 1.5, ins[1].to_f64());
            let vocab = ins[1].shape().rows() as f64;
            let largest = table.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            let mut errors = Vec::new();
            for threshold in [1e-3, 1e-5, 1e-7] {
                let filtered = d_hidden(&LmHead { threshold }, &ins);
                let pairs = exact.to_f64().into_iter().zip(filtered.to_f64());
                let error = pairs.fold(0.0f64, |m, (x, y)| m.max((x - y).abs()));
                let rounding = if dtype == DType::F32 { 1e-4 } else { 1e-12 };
                assert!(error <= scale * threshold.mul_add(vocab, rounding) * largest, "{threshold}: {error}");
                errors.push(error);
            }
            assert!(errors[0] > 10.0 * errors[1] && errors[0] > 0.0, "nothing is filtered: {errors:?}");
        }
    }

    /// Against the sum over what is left, element by element.
    #[test]
    fn what_is_left_is_summed_exactly() {
        let (ins, threshold) = (inputs(DType::F64, 3), 1e-4);
        let [hidden, table, targets, scale] = [0, 1, 2, 3].map(|i| ins[i].to_f64());
        let dim = ins[0].shape().last();
        let got = d_hidden(&LmHead { threshold }, &ins).to_f64();
        for (n, h) in hidden.chunks(dim).enumerate() {
            let logits: Vec<f64> = table.chunks(dim).map(|e| h.iter().zip(e).map(|(h, e)| h * e).sum()).collect();
            let total: f64 = logits.iter().map(|x| x.exp()).sum();
            let mut expected = vec![0.0; dim];
            for (v, x) in logits.iter().enumerate() {
                let d = x.exp() / total - f64::from(u8::from(v as f64 == targets[n]));
                if d.abs() >= threshold && targets[n] >= 0.0 {
                    (0..dim).for_each(|i| expected[i] += -1.5 * scale[0] * d * table[v * dim + i]);
                }
            }
            for (got, expected) in got[n * dim..].iter().zip(expected) {
                assert!((got - expected).abs() < 1e-12, "token {n}: {got}, must be {expected}");
            }
        }
    }

    /// The pass of the fast steps: the loss is that of the exact head, the gradient that of the filtered one.
    #[test]
    fn both_in_one_filter_alike() {
        let (ins, op) = (inputs(DType::F64, 21), LmHead { threshold: 1e-4 });
        let (outs, d_ins) = fused_by(&op, &ins, &WANTS);
        let refs: Vec<_> = ins.iter().collect();
        let exact = forward(&LmHead::EXACT, &refs);
        let d_loss = Buffer::from_f64(DType::F64, &[1], &[1.0]);
        let [filtered, whole] =
            [&op as &dyn Op, &LmHead::EXACT].map(|op| vjp(op, &WANTS, &refs, &exact, &d_loss).swap_remove(0));
        let apart = |a: &Buffer, b: &Buffer| {
            a.to_f64().iter().zip(b.to_f64()).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()))
        };
        assert!(outs.iter().zip(&exact).all(|(out, exact)| apart(out, exact) < 1e-12));
        assert!(apart(&d_ins[0], &filtered) < 1e-12);
        assert!(apart(&filtered, &whole) > 1e-9, "nothing is filtered");
    }

    #[test]
    fn a_token_does_not_depend_on_the_others_nor_on_threads() {
        let ins = inputs(DType::F32, 41);
        let op = LmHead { threshold: 1e-4 };
        let all = d_hidden(&op, &ins);
        for threads in [1, 3] {
            assert_eq!(with_threads(threads, || d_hidden(&op, &ins)).as_bytes(), all.as_bytes(), "{threads} threads");
        }
        let (width, tokens) = (ins[0].shape().last(), ins[0].shape().rows());
        for n in [0, 5, tokens - 1] {
            let row = |x: &Buffer, width: usize, dims: &[usize]| {
                Buffer::from_f64(x.dtype(), dims, &x.to_f64()[n * width..][..width])
            };
            let one = [row(&ins[0], width, &[1, 1, width]), ins[1].clone(), row(&ins[2], 1, &[1, 1]), ins[3].clone()];
            assert_eq!(d_hidden(&op, &one).as_bytes(), row(&all, width, &[1, 1, width]).as_bytes(), "token {n}");
        }
    }

    #[test]
    fn a_threshold_below_everything_changes_nothing() {
        let ins = inputs(DType::F32, 21);
        let filtered = d_hidden(&LmHead { threshold: 1e-300 }, &ins);
        assert_eq!(filtered.as_bytes(), d_hidden(&LmHead::EXACT, &ins).as_bytes());
        // Nor does any threshold where the table's gradient is wanted.
        let ins: Vec<_> = ins.iter().collect();
        let d_loss = Buffer::from_f64(DType::F32, &[1], &[1.0]);
        let both = [Want::Write, Want::Write, Want::Skip, Want::Skip];
        let outs = forward(&LmHead::EXACT, &ins);
        let [exact, same] = [&LmHead::EXACT as &dyn Op, &LmHead { threshold: 1e-2 }].map(|op| {
            vjp(op, &both, &ins, &outs, &d_loss)[..2].iter().map(|d| d.as_bytes().to_vec()).collect::<Vec<_>>()
        });
        assert!(exact == same);
    }
}
