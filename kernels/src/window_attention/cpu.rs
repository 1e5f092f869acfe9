//! The scores of a block of 32 queries stand in memory with a key to a row and a query to a lane. So the maximum and the
//! sum over keys run down the lanes and nothing is ever summed across them, and all five products (scores, y; d_p, d_q,
//! and d_k, d_v) read queries, keys and values where they lie. The scores of a block, (k + 31) × 32 numbers, stay in the
//! second level cache. Bound by arithmetic: 2·D multiply-adds for each pair of query and key, one exponential.

use super::band::{Band, Group, Masks, Rectangle};
use crate::matmul::tiles::{Tile, for_each_tile};
use crate::product::{BLOCK, Left, Right, Rows, RowsMut, Size, Start, pack, packed_len, product, transpose};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};
use std::ops::Range;

/// Queries that one thread takes at a time in the forward pass; neighbours share most of their keys.
const CHUNK: usize = 4 * BLOCK;

/// Sizes of one sample.
#[derive(Clone, Copy)]
pub struct Shape {
    pub tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
    /// At most `tokens`.
    pub window: usize,
}

impl Shape {
    fn dim(self) -> usize {
        self.heads * self.head_dim
    }

    /// Numbers in the scores of a block.
    fn scores(self) -> usize {
        self.tokens.min(Band::most_keys(self.window, BLOCK)) * BLOCK
    }

    /// Numbers in a transposed block of queries.
    fn block(self) -> usize {
        self.head_dim * BLOCK
    }

    /// Numbers in the packed keys that `queries` in a row see.
    fn panels(self, queries: usize) -> usize {
        packed_len(self.tokens.min(Band::most_keys(self.window, queries)), self.head_dim)
    }

    fn scale<T: Real>(self) -> T {
        T::from_f64(1.0 / (self.head_dim as f64).sqrt())
    }
}

/// Row 0 of one head's queries, keys or values in `qkv` [N, 3d].
#[derive(Clone, Copy)]
enum Part {
    Queries,
    Keys,
    Values,
}

/// One head of one sample.
#[derive(Clone, Copy)]
struct Head<'a, T> {
    shape: Shape,
    index: usize,
    /// The sample's [N, 3d].
    qkv: &'a [T],
}

impl<'a, T: Real> Head<'a, T> {
    /// Rows from `first` on.
    #[inline(always)]
    fn rows(self, part: Part, first: usize) -> Right<'a, T> {
        let width = 3 * self.shape.dim();
        let column = part as usize * self.shape.dim() + self.index * self.shape.head_dim;
        Right { data: &self.qkv[first * width..], width, column }
    }

    /// c [queries, D] = (or +=) the group's columns of `scores` · the rows of `part`.
    #[inline(always)]
    fn sum<I: Isa>(self, part: Part, group: &Group, scores: &[T], c: &mut impl Rows<T>, start: Start) {
        let size = Size { m: group.queries.len(), n: self.shape.head_dim, k: group.keys.len() };
        let left = Left::Transposed { block: scores, lane: group.lane };
        product::<I, T>(c, size, left, self.rows(part, group.keys.start), start);
    }
}

/// scores [keys, lanes] = rows · `block` [D, 32], where some query of the lane's group sees the key. The rows are packed
/// from key `first` on.
#[inline(always)]
fn times<I: Isa, T: Real>(panels: &[T], first: usize, block: &[T], band: &Band, scores: &mut [T]) {
    for Rectangle { keys, lanes } in band.rectangles() {
        if keys.is_empty() {
            continue;
        }
        let mut scores = RowsMut { data: &mut scores[band.row(keys.start) + lanes.start..], stride: BLOCK };
        let size = Size { m: keys.len(), n: lanes.len(), k: block.len() / BLOCK };
        let left = Left::Packed { panels, first: keys.start - first };
        let right = Right { data: block, width: BLOCK, column: lanes.start };
        product::<I, T>(&mut scores, size, left, right, Start::Zero);
    }
}

/// The keys of `group` in three stretches; in the second none is hidden from any query.
fn stretches(group: &Group) -> [(Range<usize>, bool); 3] {
    let (all, seen) = (&group.keys, &group.seen_by_all);
    [(all.start..seen.start, true), (seen.clone(), false), (seen.end..all.end, true)]
}

/// `qkv` [B, N, 3d] → `y` [B, N, d], `lse` [B, N, H].
pub fn forward<T: Real>(shape: Shape, qkv: &[T], y: &mut [T], lse: &mut [T]) {
    let Shape { tokens, heads, .. } = shape;
    let d = shape.dim();
    parallel::chunks2(y, tokens * d, lse, tokens * heads, |sample, y, lse| {
        let qkv = &qkv[sample * tokens * 3 * d..][..tokens * 3 * d];
        parallel::chunks2(y, CHUNK * d, lse, CHUNK * heads, |chunk, y, lse| {
            parallel::scratch(shape.block() + shape.scores() + shape.panels(CHUNK), |scratch| {
                simd::dispatch(Forward { shape, qkv, first: chunk * CHUNK, y, lse, scratch });
            });
        });
    });
}

/// Some queries of one sample from `first` on, all heads.
struct Forward<'a, T> {
    shape: Shape,
    qkv: &'a [T],
    first: usize,
    y: &'a mut [T],
    lse: &'a mut [T],
    scratch: &'a mut [T],
}

impl<T: Real> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { shape, qkv, first, y, lse, scratch } = self;
        let (d, masks) = (shape.dim(), Masks::new());
        let (queries, scratch) = scratch.split_at_mut(shape.block());
        let (scores, panels) = scratch.split_at_mut(shape.scores());
        let end = first + y.len() / d;
        let first_key = Band::new(first..end.min(first + BLOCK), shape.window).first_key();
        for index in 0..shape.heads {
            let head = Head { shape, index, qkv };
            pack::<I, T>(head.rows(Part::Keys, first_key), end - first_key, shape.head_dim, panels);
            for block in (first..end).step_by(BLOCK) {
                let band = Band::new(block..end.min(block + BLOCK), shape.window);
                let count = band.groups[1].queries.end - block;
                transpose::<I, T>(head.rows(Part::Queries, block), count, shape.scale(), queries);
                times::<I, T>(panels, first_key, queries, &band, scores);
                for group in band.groups.iter().filter(|group| !group.queries.is_empty()) {
                    let (max, sum) = softmax::<I, T>(group, &band, &masks, scores);
                    let row = group.queries.start - first;
                    let mut y = RowsMut { data: &mut y[row * d + index * shape.head_dim..], stride: d };
                    head.sum::<I>(Part::Values, group, &scores[band.row(group.keys.start)..], &mut y, Start::Zero);
                    for i in 0..group.queries.len() {
                        let normaliser = T::ONE / sum[i];
                        y.row(i)[..shape.head_dim].iter_mut().for_each(|y| *y *= normaliser);
                        lse[(row + i) * shape.heads + index] = T::from_f64(max[i].to_f64() + sum[i].to_f64().ln());
                    }
                }
            }
        }
    }
}

/// The group's scores become exp(score − max); returns max and sum of each lane.
#[inline(always)]
fn softmax<I: Isa, T: Real>(
    group: &Group,
    band: &Band,
    masks: &Masks<T>,
    scores: &mut [T],
) -> ([T; LANES], [T; LANES]) {
    let mut max = T::Lanes::<I>::splat(T::NEG_INFINITY);
    for (keys, masked) in stretches(group) {
        for key in keys {
            let scores = &mut scores[band.row(key) + group.lane..];
            let mut score = T::Lanes::<I>::load(scores);
            if masked {
                score = score.add(group.mask::<I, T>(key, masks));
                score.store(scores);
            }
            max = max.max(score);
        }
    }
    let mut sum = T::Lanes::<I>::zero();
    for key in group.keys.clone() {
        let scores = &mut scores[band.row(key) + group.lane..];
        let p = T::Lanes::<I>::load(scores).sub(max).exp();
        p.store(scores);
        sum = sum.add(p);
    }
    (max.to_array(), sum.to_array())
}

/// What the backward pass reads.
#[derive(Clone, Copy)]
pub struct Known<'a, T> {
    /// [B, N, 3d].
    pub qkv: &'a [T],
    /// [B, N, d].
    pub y: &'a [T],
    /// [B, N, H].
    pub lse: &'a [T],
    /// [B, N, d].
    pub d_y: &'a [T],
}

impl<'a, T> Known<'a, T> {
    fn sample(self, shape: Shape, sample: usize) -> Self {
        fn part<T>(x: &[T], sample: usize, len: usize) -> &[T] {
            &x[sample * len..][..len]
        }
        let rows = shape.tokens * shape.dim();
        Self {
            qkv: part(self.qkv, sample, 3 * rows),
            y: part(self.y, sample, rows),
            lse: part(self.lse, sample, shape.tokens * shape.heads),
            d_y: part(self.d_y, sample, rows),
        }
    }
}

/// `d_qkv` [B, N, 3d]. One thread takes one head of one sample, for which it goes through the queries in order: every
/// key's gradient is summed in that order.
pub fn backward<T: Real>(shape: Shape, known: Known<'_, T>, want: Want, d_qkv: &mut [T]) {
    let (d, rows) = (shape.dim(), 3 * shape.tokens);
    // d_qkv as [B·N·3, d]: a head of a sample is then one rectangle with three rows for each token.
    let samples = d_qkv.len() / (rows * d);
    for_each_tile(d_qkv, [samples * rows, d], d, [rows, shape.head_dim], |tile| {
        let known = known.sample(shape, tile.rows.start / rows);
        let index = tile.cols.start / shape.head_dim;
        let head = shape.tokens * shape.head_dim;
        let panels = packed_len(shape.tokens, shape.head_dim);
        parallel::scratch(2 * (shape.block() + shape.scores() + panels + head), |scratch| {
            simd::dispatch(Backward { shape, index, known, want, d_qkv: tile, scratch });
        });
    });
}

/// One head of one sample.
struct Backward<'a, 't, T> {
    shape: Shape,
    index: usize,
    known: Known<'a, T>,
    want: Want,
    d_qkv: Tile<'t, T>,
    scratch: &'a mut [T],
}

/// Rows of d_q from `first` on.
struct Queries<'a, 't, T> {
    d_qkv: &'a mut Tile<'t, T>,
    first: usize,
}

impl<T> Rows<T> for Queries<'_, '_, T> {
    #[inline(always)]
    fn row(&mut self, i: usize) -> &mut [T] {
        let width = self.d_qkv.cols.len();
        self.d_qkv.row(3 * (self.first + i) + Part::Queries as usize, 0, width)
    }
}

impl<T: Real> Kernel for Backward<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { shape, index, known, want, mut d_qkv, scratch } = self;
        let (d, head_dim, masks) = (shape.dim(), shape.head_dim, Masks::new());
        let (queries, scratch) = scratch.split_at_mut(shape.block());
        let (d_y, scratch) = scratch.split_at_mut(shape.block());
        let (p, scratch) = scratch.split_at_mut(shape.scores());
        let (d_s, scratch) = scratch.split_at_mut(shape.scores());
        let (keys, scratch) = scratch.split_at_mut(packed_len(shape.tokens, head_dim));
        let (values, scratch) = scratch.split_at_mut(keys.len());
        let (d_k, d_v) = scratch.split_at_mut(shape.tokens * head_dim);
        let head = Head { shape, index, qkv: known.qkv };
        pack::<I, T>(head.rows(Part::Keys, 0), shape.tokens, head_dim, keys);
        pack::<I, T>(head.rows(Part::Values, 0), shape.tokens, head_dim, values);
        let start = if want == Want::Add { Start::C } else { Start::Zero };
        for block in (0..shape.tokens).step_by(BLOCK) {
            let band = Band::new(block..shape.tokens.min(block + BLOCK), shape.window);
            let count = band.groups[1].queries.end - block;
            let d_rows = Right { data: &known.d_y[block * d..], width: d, column: index * head_dim };
            transpose::<I, T>(head.rows(Part::Queries, block), count, shape.scale(), queries);
            transpose::<I, T>(d_rows, count, T::ONE, d_y);
            times::<I, T>(keys, 0, queries, &band, p);
            times::<I, T>(values, 0, d_y, &band, d_s);

            for group in band.groups.iter().filter(|group| !group.queries.is_empty()) {
                // Lanes without a query: p = exp(−∞) = 0, so that they add nothing to d_k and d_v.
                let (mut lse, mut delta) = ([-T::NEG_INFINITY; LANES], [T::ZERO; LANES]);
                for (i, query) in group.queries.clone().enumerate() {
                    let at = query * d + index * head_dim;
                    lse[i] = known.lse[query * shape.heads + index];
                    delta[i] = simd::dot::<I, T>(&known.y[at..][..head_dim], &known.d_y[at..][..head_dim]);
                }
                let lse_delta = [T::Lanes::<I>::load(&lse), T::Lanes::<I>::load(&delta)];
                d_softmax::<I, T>(group, &band, &masks, lse_delta, shape.scale(), p, d_s);
                // d_q = d_s · k
                let mut d_q = Queries { d_qkv: &mut d_qkv, first: group.queries.start };
                head.sum::<I>(Part::Keys, group, &d_s[band.row(group.keys.start)..], &mut d_q, start);
            }

            // d_k += d_sᵀ · q and d_v += pᵀ · d_y, over the queries of each rectangle. No earlier query saw these keys:
            let new = block * head_dim..(block + count) * head_dim;
            d_k[new.clone()].fill(T::ZERO);
            d_v[new].fill(T::ZERO);
            for Rectangle { keys, lanes } in band.rectangles() {
                if keys.is_empty() {
                    continue;
                }
                let first = block + lanes.start;
                let size = Size { m: keys.len(), n: head_dim, k: lanes.len().min(block + count - first) };
                let rights = [head.rows(Part::Queries, first), d_rows.skip(lanes.start)];
                for (c, scores, right) in [(&mut *d_k, &*d_s, rights[0]), (&mut *d_v, &*p, rights[1])] {
                    let mut c = RowsMut { data: &mut c[keys.start * head_dim..], stride: head_dim };
                    let left = Left::Block { block: &scores[band.row(keys.start)..], lane: lanes.start };
                    product::<I, T>(&mut c, size, left, right, Start::C);
                }
            }
        }
        for (part, gradient) in [(Part::Keys, d_k), (Part::Values, d_v)] {
            for (token, gradient) in gradient.chunks_exact(head_dim).enumerate() {
                let out = d_qkv.row(3 * token + part as usize, 0, head_dim);
                match want {
                    Want::Add => out.iter_mut().zip(gradient).for_each(|(out, &gradient)| *out += gradient),
                    _ => out.copy_from_slice(gradient),
                }
            }
        }
    }
}

/// `p` = exp(scores − lse) in place of the scores, and `d_s` = p·(d_p − delta)·scale in place of d_p.
#[inline(always)]
fn d_softmax<I: Isa, T: Real>(
    group: &Group,
    band: &Band,
    masks: &Masks<T>,
    [lse, delta]: [T::Lanes<I>; 2],
    scale: T,
    p: &mut [T],
    d_s: &mut [T],
) {
    let scale = T::Lanes::<I>::splat(scale);
    for (keys, masked) in stretches(group) {
        for key in keys {
            let at = band.row(key) + group.lane;
            let (p, d_s) = (&mut p[at..], &mut d_s[at..]);
            let mut score = T::Lanes::<I>::load(p);
            if masked {
                score = score.add(group.mask::<I, T>(key, masks));
            }
            let probability = score.sub(lse).exp();
            probability.store(p);
            T::Lanes::<I>::load(d_s).sub(delta).mul(probability.mul(scale)).store(d_s);
        }
    }
}
