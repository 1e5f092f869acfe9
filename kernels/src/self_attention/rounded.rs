//! The CPU's attention with products that round their factors to bf16: q/√D, k, v and p; backward also q, d_y and d_s.
//!
//! As in f32, scores have a row per key and a lane per query. Here both go in blocks of 32 from the first token on, the
//! blocks of the product. So the bits of a token depend on its place in the sample only.

use super::backward::{Known, clear_padding, d_softmax};
use super::band::{Band, Masks};
use super::cpu::{Head, Part, Samples, Shape, softmax, without_padding};
use crate::attention::scale;
use crate::lanes::split;
use crate::matmul::bf16::{Multiplier, Strip};
use crate::matmul::mat::Mat;
use crate::matmul::tiles::{Tile, for_each_tile};
use crate::product::{Right, transpose};
use engine::simd::{self, Block, Isa, Kernel, LANES, Lanes, SIDE};
use engine::{Want, parallel};
use half::bf16;
use std::ops::Range;

/// Queries that one thread takes at a time in the forward pass. It packs the keys that they see: their own and those
/// around.
const CHUNK: usize = 8 * SIDE;

/// A block of scores: a row per key, a column per query.
type Square = [[f32; SIDE]; SIDE];

/// Numbers of scratch memory in a square, and in a block that is packed.
const SQUARE: usize = SIDE * SIDE;
const PACKED: usize = SQUARE / 2;

impl Shape {
    /// Blocks of a row of a head.
    fn across(self) -> usize {
        self.head_dim.div_ceil(SIDE)
    }

    /// Blocks of keys that some query of a block sees.
    fn seen(self, block: usize) -> Range<usize> {
        self.seen_from(block * SIDE) / SIDE..self.seen_until(block * SIDE + SIDE - 1).div_ceil(SIDE)
    }

    /// The most of these, with enough tokens.
    fn most_seen(self) -> usize {
        self.before.div_ceil(SIDE) + 1 + self.after.div_ceil(SIDE)
    }

    /// The tokens of a block.
    fn tokens_of(self, block: usize) -> Range<usize> {
        block * SIDE..self.tokens.min((block + 1) * SIDE)
    }
}

/// Rows of 32 numbers as a matrix.
fn flat(rows: &[[f32; SIDE]]) -> Mat<'_, f32> {
    Mat::new(rows.as_flattened(), rows.len(), SIDE)
}

fn squares(memory: &mut [f32]) -> &mut [Square] {
    memory.as_chunks_mut().0.as_chunks_mut().0
}

fn blocks(memory: &mut [f32]) -> &mut [Block] {
    bytemuck::cast_slice_mut::<f32, bf16>(memory).as_chunks_mut().0
}

/// Some rows of a head.
fn matrix(rows: Right<'_, f32>, count: usize, head_dim: usize) -> Mat<'_, f32> {
    Mat::with_strides(&rows.data[rows.column..], count, head_dim, rows.width, 1)
}

/// Packs a left factor: for each 32 rows the blocks `across`.
fn pack_left(x: Mat<'_, f32>, across: usize, out: &mut [Block]) {
    for (x, out) in x.strips(SIDE).zip(out.chunks_exact_mut(across)) {
        Strip { x, left: true, out }.pack();
    }
}

/// Packs a right factor: for each 32 columns the blocks `down`.
fn pack_right(x: Mat<'_, f32>, down: usize, out: &mut [Block]) {
    for (x, out) in x.transposed().strips(SIDE).zip(out.chunks_exact_mut(down)) {
        Strip { x, left: false, out }.pack();
    }
}

/// `out` [columns, 32] = `factor` times the transpose of the first `count` rows.
struct Turn<'a> {
    rows: Right<'a, f32>,
    count: usize,
    factor: f32,
    out: &'a mut [f32],
}

impl Kernel for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        transpose::<I, f32>(self.rows, self.count, self.factor, self.out);
    }
}

/// Packs the queries of some tokens, times the factor of the scores, as the columns of a right factor.
fn pack_queries(head: Head<'_, f32>, tokens: Range<usize>, turned: &mut [Square], out: &mut [Block]) {
    let head_dim = head.shape.head_dim;
    let (rows, count) = (head.rows(Part::Queries, tokens.start), tokens.len());
    let turned = &mut turned.as_flattened_mut()[..head_dim];
    simd::dispatch(Turn { rows, count, factor: scale(head_dim), out: turned.as_flattened_mut() });
    pack_right(flat(turned), out.len(), out);
}

/// The transposes of some squares.
fn turn_back<'a>(squares: &[Square], turned: &'a mut [Square]) -> &'a [Square] {
    for (square, out) in squares.iter().zip(&mut *turned) {
        let rows = Right::rows(square.as_flattened(), SIDE);
        simd::dispatch(Turn { rows, count: SIDE, factor: 1.0, out: out.as_flattened_mut() });
    }
    turned
}

/// `qkv` [B, N, 3d] → `y` [B, N, d], `lse` [B, N, H].
pub fn forward(samples: Samples, qkv: &[f32], y: &mut [f32], lse: &mut [f32]) {
    let Samples { shape, .. } = samples;
    let Shape { tokens, heads, .. } = shape;
    let (d, across) = (shape.dim(), shape.across());
    let seen = tokens.div_ceil(SIDE).min(shape.most_seen());
    let packed = tokens.div_ceil(SIDE).min(CHUNK / SIDE - 1 + shape.most_seen()) * across * PACKED;
    let sizes = [packed, packed, across * PACKED, seen * SQUARE, seen * PACKED, across * SQUARE, across * SQUARE];
    parallel::chunks2(y, tokens * d, lse, tokens * heads, |sample, y, lse| {
        let shape = samples.of(sample);
        let qkv = &qkv[sample * tokens * 3 * d..][..shape.tokens * 3 * d];
        let (y, lse) = (without_padding(y, shape.tokens * d), without_padding(lse, shape.tokens * heads));
        parallel::chunks2(y, CHUNK * d, lse, CHUNK * heads, |chunk, y, lse| {
            parallel::scratch(sizes.iter().sum(), |scratch| {
                forward_chunk(shape, qkv, chunk * CHUNK, y, lse, split(scratch, sizes));
            });
        });
    });
}

/// The queries of one sample from `from` on, all heads.
fn forward_chunk(shape: Shape, qkv: &[f32], from: usize, y: &mut [f32], lse: &mut [f32], scratch: [&mut [f32]; 7]) {
    let (d, head_dim, across) = (shape.dim(), shape.head_dim, shape.across());
    let [keys, values, queries, scores, p, sums, turned] = scratch;
    let [keys, values, queries, p] = [keys, values, queries, p].map(blocks);
    let [scores, sums, turned] = [scores, sums, turned].map(squares);
    let multiplier = Multiplier::begin();
    let end = from + y.len() / d;
    let first = shape.seen(from / SIDE).start;
    let count = shape.seen_until(end - 1) - first * SIDE;
    let down = count.div_ceil(SIDE);
    for index in 0..shape.heads {
        let head = Head { shape, index, qkv };
        let rows = |part, first, count| matrix(head.rows(part, first), count, head_dim);
        pack_left(rows(Part::Keys, first * SIDE, count), across, keys);
        pack_left(rows(Part::Values, first * SIDE, count).transposed(), down, values);
        for block in from / SIDE..end.div_ceil(SIDE) {
            let (tokens, seen) = (shape.tokens_of(block), shape.seen(block));
            pack_queries(head, tokens.clone(), turned, queries);
            let scores = &mut scores[..seen.len()];
            for (keys, scores) in keys[(seen.start - first) * across..].chunks_exact(across).zip(&mut *scores) {
                multiplier.multiply(keys, queries, Want::Write, scores);
            }
            let [max, total] = simd::dispatch(Softmax(Scores { shape, block, scores }));
            let p = &mut p[..seen.len()];
            // yᵀ = vᵀ · pᵀ, because transposing y is less work than transposing p.
            pack_right(flat(scores.as_flattened()), seen.len(), p);
            for (values, sums) in values.chunks_exact(down).zip(&mut *sums) {
                multiplier.multiply(&values[seen.start - first..][..seen.len()], p, Want::Write, sums);
            }
            let sums = turn_back(sums, turned);
            for (i, token) in tokens.enumerate() {
                let row = token - from;
                let normaliser = 1.0 / total[i];
                for (y, sums) in y[row * d + index * head_dim..][..head_dim].chunks_mut(SIDE).zip(sums) {
                    y.iter_mut().zip(&sums[i]).for_each(|(y, sum)| *y = sum * normaliser);
                }
                lse[row * shape.heads + index] = (f64::from(max[i]) + f64::from(total[i]).ln()) as f32;
            }
        }
    }
}

/// The scores of a block of queries, [keys, 32] from the first key of a block on.
struct Scores<'a> {
    shape: Shape,
    block: usize,
    scores: &'a mut [Square],
}

impl Scores<'_> {
    /// Makes the scores of keys that a query does not see −∞.
    #[inline(always)]
    fn hide<I: Isa>(&mut self) {
        let Self { shape, block, scores } = self;
        let (masks, first, from) = (Masks::new(), shape.seen(*block).start * SIDE, *block * SIDE);
        let groups = Band::new(shape.tokens_of(*block), *shape).groups;
        let rows = scores.as_flattened_mut();
        // All queries see the keys between these two ranges.
        let new = shape.seen_until(from);
        let old = first..new.min(shape.seen_from(from + SIDE - 1));
        for key in old.chain(new..first + rows.len()) {
            if key >= shape.tokens {
                rows[key - first] = [f32::NEG_INFINITY; SIDE];
                continue;
            }
            for group in &groups {
                let scores = &mut rows[key - first][group.lane..];
                I::F32::load(scores).add(group.mask::<I, f32>(key, &masks)).store(scores);
            }
        }
    }
}

/// The products become exp(score − max); returns maximum and sum of each query.
struct Softmax<'a>(Scores<'a>);

impl Kernel for Softmax<'_> {
    type Output = [[f32; SIDE]; 2];

    #[inline(always)]
    fn run<I: Isa>(mut self) -> Self::Output {
        self.0.hide::<I>();
        let mut all = [[0.0; SIDE]; 2];
        for lane in [0, LANES] {
            let (max, total) = softmax::<I, f32>(self.0.scores.as_flattened_mut(), lane);
            all[0][lane..][..LANES].copy_from_slice(&max);
            all[1][lane..][..LANES].copy_from_slice(&total);
        }
        all
    }
}

/// The products become probabilities, and `d_p` becomes `d_s`.
struct DSoftmax<'a> {
    scores: Scores<'a>,
    d_s: &'a mut [Square],
    index: usize,
    known: Known<'a, f32>,
}

impl Kernel for DSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { mut scores, d_s, index, known } = self;
        scores.hide::<I>();
        let Shape { heads, head_dim, .. } = scores.shape;
        // Lanes without a query: p = exp(−∞) = 0, so that they add nothing to d_k and d_v.
        let (mut lse, mut delta) = ([f32::INFINITY; SIDE], [0.0; SIDE]);
        for (i, query) in scores.shape.tokens_of(scores.block).enumerate() {
            let at = (query * heads + index) * head_dim;
            lse[i] = known.lse[query * heads + index];
            delta[i] = simd::dot::<I, f32>(&known.y[at..][..head_dim], &known.d_y[at..][..head_dim]);
        }
        for lane in [0, LANES] {
            let rows = [&mut *scores.scores, &mut *d_s].map(<[Square]>::as_flattened_mut);
            let lanes = [I::F32::load(&lse[lane..]), I::F32::load(&delta[lane..])];
            d_softmax::<I, f32>(rows, lane, lanes, scale(head_dim));
        }
    }
}

/// `d_qkv` [B, N, 3d]. A thread takes one head of one sample and sums every key's gradient in the order of the queries.
pub fn backward(samples: Samples, known: Known<'_, f32>, want: Want, d_qkv: &mut [f32]) {
    let Samples { shape, .. } = samples;
    let (d, rows) = (shape.dim(), 3 * shape.tokens);
    let count = d_qkv.len() / (rows * d);
    let (across, down) = (shape.across(), shape.tokens.div_ceil(SIDE));
    let (head, seen) = (across * down, down.min(shape.most_seen()));
    let squares = [head, head, seen, seen, across, across].map(|count| count * SQUARE);
    let packed = [head, head, head, across, across, across, across, seen, seen].map(|count| count * PACKED);
    let sum = squares.iter().chain(&packed).sum();
    for_each_tile(d_qkv, [count * rows, d], d, [rows, shape.head_dim], |mut tile| {
        let sample = tile.rows.start / rows;
        let (known, shape) = (known.sample(shape, sample), samples.of(sample));
        clear_padding(&mut tile, shape, want);
        if shape.tokens == 0 {
            return;
        }
        parallel::scratch(sum, |scratch| {
            let (first, rest) = scratch.split_at_mut(squares.iter().sum());
            backward_head(shape, known, want, tile, split(first, squares), split(rest, packed));
        });
    });
}

/// One head of one sample.
fn backward_head(
    shape: Shape,
    known: Known<'_, f32>,
    want: Want,
    mut d_qkv: Tile<'_, f32>,
    sums: [&mut [f32]; 6],
    packed: [&mut [f32]; 9],
) {
    let (d, head_dim, across, down) = (shape.dim(), shape.head_dim, shape.across(), shape.tokens.div_ceil(SIDE));
    let index = d_qkv.cols.start / head_dim;
    let [d_k, d_v, scores, d_s, d_q, turned] = sums.map(squares);
    let [k, v, k_turned, q_turned, d_y_turned, q, d_y, left, right] = packed.map(blocks);
    let multiplier = Multiplier::begin();
    let head = Head { shape, index, qkv: known.qkv };
    let all = |part| matrix(head.rows(part, 0), shape.tokens, head_dim);
    pack_left(all(Part::Keys), across, k);
    pack_left(all(Part::Values), across, v);
    pack_left(all(Part::Keys).transposed(), down, k_turned);
    for block in 0..down {
        let (tokens, seen) = (shape.tokens_of(block), shape.seen(block));
        let d_y_rows = Right { column: index * head_dim, ..Right::rows(&known.d_y[tokens.start * d..], d) };
        let d_y_rows = matrix(d_y_rows, tokens.len(), head_dim);
        pack_queries(head, tokens.clone(), turned, q_turned);
        pack_right(d_y_rows.transposed(), across, d_y_turned);
        pack_right(matrix(head.rows(Part::Queries, tokens.start), tokens.len(), head_dim), 1, q);
        pack_right(d_y_rows, 1, d_y);
        let (scores, d_s) = (&mut scores[..seen.len()], &mut d_s[..seen.len()]);
        for (out, rows, columns) in [(&mut *scores, &*k, &*q_turned), (&mut *d_s, &*v, &*d_y_turned)] {
            for (rows, out) in rows[seen.start * across..].chunks_exact(across).zip(out) {
                multiplier.multiply(rows, columns, Want::Write, out);
            }
        }
        simd::dispatch(DSoftmax { scores: Scores { shape, block, scores }, d_s, index, known });
        // d_qᵀ = kᵀ · d_sᵀ
        let right = &mut right[..seen.len()];
        pack_right(flat(d_s.as_flattened()), seen.len(), right);
        for (k, d_q) in k_turned.chunks_exact(down).zip(&mut *d_q) {
            multiplier.multiply(&k[seen.clone()], right, Want::Write, d_q);
        }
        let d_q = turn_back(d_q, turned);
        for (i, token) in tokens.enumerate() {
            write(d_q, i, want, d_qkv.row(3 * token + Part::Queries as usize, 0, head_dim));
        }
        // d_k += d_sᵀ · q and d_v += pᵀ · d_y. The first block that sees some keys overwrites their sums.
        for (sums, scores, right) in [(&mut *d_k, &*d_s, &*q), (&mut *d_v, scores, d_y)] {
            let left = &mut left[..seen.len()];
            pack_left(flat(scores.as_flattened()), 1, left);
            for (key, left) in seen.clone().zip(left.chunks(1)) {
                let how =
                    if (key * SIDE).saturating_sub(shape.after) / SIDE == block { Want::Write } else { Want::Add };
                for (right, sum) in right.chunks(1).zip(&mut sums[key * across..]) {
                    multiplier.multiply(left, right, how, sum);
                }
            }
        }
    }
    for (part, gradient) in [(Part::Keys, d_k), (Part::Values, d_v)] {
        for token in 0..shape.tokens {
            let sums = &gradient[token / SIDE * across..][..across];
            write(sums, token % SIDE, want, d_qkv.row(3 * token + part as usize, 0, head_dim));
        }
    }
}

/// Row i of the squares side by side, written or added.
fn write(squares: &[Square], i: usize, want: Want, out: &mut [f32]) {
    for (out, square) in out.chunks_mut(SIDE).zip(squares) {
        match want {
            Want::Add => out.iter_mut().zip(&square[i]).for_each(|(out, x)| *out += x),
            _ => out.copy_from_slice(&square[i][..out.len()]),
        }
    }
}
