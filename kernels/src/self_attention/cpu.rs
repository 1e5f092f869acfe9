//! Takes a block of 32 queries at a time. Its scores have a row per key and a lane per query, so that maximum and sum
//! over the keys work within lanes. All products (scores and y; d_p, d_q, d_k and d_v) are small, on these (k + 31) ×
//! 32 scores, which stay in L2 if a token sees up to a few thousand. Compute-bound: 2·D multiply-adds forward and 5·D backward for each pair of query and
//! key, and an exponential.

use super::band::{Band, Group, Masks, Rectangle};
use crate::attention::scale;
use crate::lanes::split;
use crate::product::{BLOCK, Left, Right, Rows, RowsMut, Size, gather, pack, packed_len, product, transpose};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};

/// Queries that one thread takes at a time in the forward pass; adjacent queries share most of their keys.
const CHUNK: usize = 4 * BLOCK;

/// Sizes of one sample. A token sees itself, the `before` tokens before it and the `after` tokens after it; both are less than
/// `tokens`.
#[derive(Clone, Copy)]
pub struct Shape {
    pub tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub before: usize,
    pub after: usize,
}

/// The sizes of every sample: without padding, or of as many tokens as its length says.
#[derive(Clone, Copy)]
pub struct Samples<'a> {
    pub shape: Shape,
    pub lengths: Option<&'a [i32]>,
}

impl Samples<'_> {
    /// Of one sample.
    ///
    /// # Panics
    /// If its length is invalid.
    pub fn of(self, sample: usize) -> Shape {
        let Some(lengths) = self.lengths else { return self.shape };
        let (length, most) = (lengths[sample], self.shape.tokens);
        let tokens = usize::try_from(length).ok().filter(|&n| n <= most);
        let tokens =
            tokens.unwrap_or_else(|| panic!("the length of sample {sample} is {length}, must be between 0 and {most}"));
        let others = tokens.saturating_sub(1);
        Shape { tokens, before: others, after: others, ..self.shape }
    }
}

/// The first `n` elements; the others, which are padding, become zero.
pub fn without_padding<T: Real>(x: &mut [T], n: usize) -> &mut [T] {
    let (text, padding) = x.split_at_mut(n);
    padding.fill(T::ZERO);
    text
}

impl Shape {
    pub fn dim(self) -> usize {
        self.heads * self.head_dim
    }

    /// The first token that a token sees, and the one after the last.
    pub fn seen_from(self, token: usize) -> usize {
        token.saturating_sub(self.before)
    }

    pub fn seen_until(self, token: usize) -> usize {
        self.tokens.min(token + self.after + 1)
    }

    /// Numbers in the scores of a block.
    pub fn scores(self) -> usize {
        Band::most_keys(self, BLOCK) * BLOCK
    }

    /// Numbers in a transposed block of queries.
    pub fn block(self) -> usize {
        self.head_dim * BLOCK
    }

    /// Numbers in the packed keys that `queries` consecutive queries see.
    fn panels(self, queries: usize) -> usize {
        packed_len(Band::most_keys(self, queries), self.head_dim)
    }
}

/// A third of a row of `qkv`.
#[derive(Clone, Copy)]
pub enum Part {
    Queries,
    Keys,
    Values,
}

/// Head `index` of one sample, `qkv` [N, 3d].
#[derive(Clone, Copy)]
pub struct Head<'a, T> {
    pub shape: Shape,
    pub index: usize,
    pub qkv: &'a [T],
}

impl<'a, T: Real> Head<'a, T> {
    /// Rows from `first` on.
    #[inline(always)]
    pub fn rows(self, part: Part, first: usize) -> Right<'a, T> {
        let width = 3 * self.shape.dim();
        let column = part as usize * self.shape.dim() + self.index * self.shape.head_dim;
        Right { data: &self.qkv[first * width..], width, column }
    }
}

/// c [queries, D] = (or +=) the group's columns of `scores`, transposed · `rows` [keys, D], its first key the group's.
#[inline(always)]
pub fn sum<I: Isa, T: Real>(
    group: &Group,
    band: &Band,
    scores: &[T],
    rows: Right<'_, T>,
    c: &mut impl Rows<T>,
    head_dim: usize,
    how: Want,
) {
    let size = Size { m: group.queries.len(), n: head_dim, k: group.keys.len() };
    let left = Left::Transposed { block: &scores[band.row(group.keys.start)..], lane: group.lane };
    product::<I, T>(c, size, left, rows, how);
}

/// scores [keys, lanes] = rows · `block` [D, 32], for keys that some query of the lane's group sees. The rows are
/// packed from key `first` on.
#[inline(always)]
pub fn times<I: Isa, T: Real>(panels: &[T], first: usize, block: &[T], band: &Band, scores: &mut [T]) {
    for Rectangle { keys, lanes } in band.rectangles() {
        if keys.is_empty() {
            continue;
        }
        let mut scores = RowsMut { data: &mut scores[band.row(keys.start) + lanes.start..], stride: BLOCK };
        let size = Size { m: keys.len(), n: lanes.len(), k: block.len() / BLOCK };
        let left = Left::Packed { panels, first: keys.start - first };
        let right = Right { column: lanes.start, ..Right::rows(block, BLOCK) };
        product::<I, T>(&mut scores, size, left, right, Want::Write);
    }
}

/// Masks the keys that a query of the group does not see: their scores become −∞.
#[inline(always)]
pub fn hide<I: Isa, T: Real>(group: &Group, band: &Band, masks: &Masks<T>, scores: &mut [T]) {
    let (all, seen) = (&group.keys, &group.seen_by_all);
    for keys in [all.start..seen.start, seen.end..all.end] {
        for key in keys {
            let scores = &mut scores[band.row(key) + group.lane..];
            T::Lanes::<I>::load(scores).add(group.mask::<I, T>(key, masks)).store(scores);
        }
    }
}

/// The scores of the group's keys: its lanes are some columns of these rows.
#[inline(always)]
pub fn rows_of<'a, T>(group: &Group, band: &Band, scores: &'a mut [T]) -> &'a mut [[T; BLOCK]] {
    &mut scores[band.row(group.keys.start)..].as_chunks_mut().0[..group.keys.len()]
}

/// `qkv` [B, N, 3d] → `y` [B, N, d], `lse` [B, N, H].
pub fn forward<T: Real>(samples: Samples, qkv: &[T], y: &mut [T], lse: &mut [T]) {
    let Shape { tokens, heads, .. } = samples.shape;
    let d = samples.shape.dim();
    parallel::chunks2(y, tokens * d, lse, tokens * heads, |sample, y, lse| {
        let shape = samples.of(sample);
        let qkv = &qkv[sample * tokens * 3 * d..][..shape.tokens * 3 * d];
        let (y, lse) = (without_padding(y, shape.tokens * d), without_padding(lse, shape.tokens * heads));
        parallel::chunks2(y, CHUNK * d, lse, CHUNK * heads, |chunk, y, lse| {
            parallel::scratch(shape.block() + shape.scores() + 2 * shape.panels(CHUNK), |scratch| {
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
        let (d, head_dim, masks) = (shape.dim(), shape.head_dim, Masks::new());
        let panels = shape.panels(CHUNK);
        let [queries, scores, keys, values] = split(scratch, [shape.block(), shape.scores(), panels, panels]);
        let end = first + y.len() / d;
        let first_key = Band::new(first..end.min(first + BLOCK), shape).first_key();
        let count = shape.seen_until(end - 1) - first_key;
        for index in 0..shape.heads {
            let head = Head { shape, index, qkv };
            let values = &mut values[..count * head_dim];
            pack::<I, T>(head.rows(Part::Keys, first_key), count, head_dim, keys);
            gather(head.rows(Part::Values, first_key), head_dim, values);
            for block in (first..end).step_by(BLOCK) {
                let band = Band::new(block..end.min(block + BLOCK), shape);
                let count = band.groups[1].queries.end - block;
                transpose::<I, T>(head.rows(Part::Queries, block), count, scale(head_dim), queries);
                times::<I, T>(keys, first_key, queries, &band, scores);
                for group in band.groups.iter().filter(|group| !group.queries.is_empty()) {
                    hide::<I, T>(group, &band, &masks, scores);
                    let (max, total) = softmax::<I, T>(rows_of(group, &band, scores), group.lane);
                    let row = group.queries.start - first;
                    let mut y = RowsMut { data: &mut y[row * d + index * head_dim..], stride: d };
                    let values = Right::rows(values, head_dim).skip(group.keys.start - first_key);
                    sum::<I, T>(group, &band, scores, values, &mut y, head_dim, Want::Write);
                    for i in 0..group.queries.len() {
                        let normaliser = T::ONE / total[i];
                        for y in &mut y.row(i)[..head_dim] {
                            *y *= normaliser;
                        }
                        lse[(row + i) * shape.heads + index] = T::from_f64(max[i].to_f64() + total[i].to_f64().ln());
                    }
                }
            }
        }
    }
}

/// The scores become exp(score − max); returns max and sum of each lane.
#[inline(always)]
pub fn softmax<I: Isa, T: Real>(scores: &mut [[T; BLOCK]], lane: usize) -> ([T; LANES], [T; LANES]) {
    // Four independent maxima, so that none waits for the previous one.
    let mut max = [T::Lanes::<I>::splat(T::NEG_INFINITY); 4];
    for some in scores.chunks(4) {
        for (j, row) in some.iter().enumerate() {
            max[j] = max[j].max(T::Lanes::<I>::load(&row[lane..]));
        }
    }
    let max = max[0].max(max[1]).max(max[2].max(max[3]));
    let mut total = T::Lanes::<I>::zero();
    for row in scores {
        let row = &mut row[lane..];
        let p = T::Lanes::<I>::load(row).sub(max).exp();
        p.store(row);
        total = total.add(p);
    }
    (max.to_array(), total.to_array())
}
