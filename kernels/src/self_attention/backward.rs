//! The backward pass on the CPU.

use super::band::{Band, Masks, Rectangle};
use super::cpu::{Head, Part, Samples, Shape, hide, rows_of, sum, times};
use crate::attention::scale;
use crate::lanes::split;
use crate::matmul::tiles::{Tile, for_each_tile};
use crate::product::{BLOCK, Left, Right, Rows, RowsMut, Size, gather, pack, packed_len, product, transpose};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Buffer, Want, parallel};

/// `qkv` [B, N, 3d], `y` and `d_y` [B, N, d], `lse` [B, N, H].
#[derive(Clone, Copy)]
pub struct Known<'a, T> {
    pub qkv: &'a [T],
    pub y: &'a [T],
    pub lse: &'a [T],
    pub d_y: &'a [T],
}

impl<'a, T: Real> Known<'a, T> {
    pub fn new([qkv, y, lse, d_y]: [&'a Buffer; 4]) -> Self {
        Self { qkv: qkv.as_slice(), y: y.as_slice(), lse: lse.as_slice(), d_y: d_y.as_slice() }
    }

    pub fn sample(self, shape: Shape, sample: usize) -> Self {
        let part = |x: &'a [T], width: usize| &x[sample * shape.tokens * width..][..shape.tokens * width];
        let d = shape.dim();
        Self {
            qkv: part(self.qkv, 3 * d),
            y: part(self.y, d),
            lse: part(self.lse, shape.heads),
            d_y: part(self.d_y, d),
        }
    }
}

/// `d_qkv` [B, N, 3d]. A thread takes one head of one sample and sums every key's gradient in the order of the queries.
pub fn backward<T: Real>(samples: Samples, known: Known<'_, T>, want: Want, d_qkv: &mut [T]) {
    let Samples { shape, .. } = samples;
    let (d, rows) = (shape.dim(), 3 * shape.tokens);
    // d_qkv as [B·N·3, d]: so a head of a sample is one rectangle with three rows per token.
    let count = d_qkv.len() / (rows * d);
    for_each_tile(d_qkv, [count * rows, d], d, [rows, shape.head_dim], |mut tile| {
        let sample = tile.rows.start / rows;
        let (known, shape) = (known.sample(shape, sample), samples.of(sample));
        clear_padding(&mut tile, shape, want);
        let index = tile.cols.start / shape.head_dim;
        let head = shape.tokens * shape.head_dim;
        let panels = packed_len(shape.tokens, shape.head_dim);
        parallel::scratch(3 * shape.block() + 2 * (shape.scores() + panels) + 3 * head, |scratch| {
            simd::dispatch(Backward { shape, index, known, want, d_qkv: tile, scratch });
        });
    });
}

/// Padding has no gradient.
pub fn clear_padding<T: Real>(d_qkv: &mut Tile<'_, T>, shape: Shape, want: Want) {
    if want == Want::Write {
        let (rows, width) = (d_qkv.rows.len(), d_qkv.cols.len());
        (3 * shape.tokens..rows).for_each(|row| d_qkv.row(row, 0, width).fill(T::ZERO));
    }
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
        let [block, scores, rows] = [shape.block(), shape.scores(), shape.tokens * head_dim];
        let panels = packed_len(shape.tokens, head_dim);
        let [turned, queries, d_y, p, d_s, keys, d_k, d_v, packed_keys, packed_values] =
            split(scratch, [block, block, block, scores, scores, rows, rows, rows, panels, panels]);
        let head = Head { shape, index, qkv: known.qkv };
        gather(head.rows(Part::Keys, 0), head_dim, keys);
        pack::<I, T>(Right::rows(keys, head_dim), shape.tokens, head_dim, packed_keys);
        pack::<I, T>(head.rows(Part::Values, 0), shape.tokens, head_dim, packed_values);
        d_k.fill(T::ZERO);
        d_v.fill(T::ZERO);
        for block in (0..shape.tokens).step_by(BLOCK) {
            let band = Band::new(block..shape.tokens.min(block + BLOCK), shape);
            let count = band.groups[1].queries.end - block;
            let (queries, d_y) = (&mut queries[..count * head_dim], &mut d_y[..count * head_dim]);
            gather(head.rows(Part::Queries, block), head_dim, queries);
            gather(Right { column: index * head_dim, ..Right::rows(&known.d_y[block * d..], d) }, head_dim, d_y);
            let (queries, d_y) = (Right::rows(queries, head_dim), Right::rows(d_y, head_dim));
            transpose::<I, T>(queries, count, scale(head_dim), turned);
            times::<I, T>(packed_keys, 0, turned, &band, p);
            transpose::<I, T>(d_y, count, T::ONE, turned);
            times::<I, T>(packed_values, 0, turned, &band, d_s);

            for group in band.groups.iter().filter(|group| !group.queries.is_empty()) {
                // Lanes without a query: p = exp(−∞) = 0, so that they add nothing to d_k and d_v.
                let (mut lse, mut delta) = ([-T::NEG_INFINITY; LANES], [T::ZERO; LANES]);
                for (i, query) in group.queries.clone().enumerate() {
                    let at = query * d + index * head_dim;
                    lse[i] = known.lse[query * shape.heads + index];
                    delta[i] = simd::dot::<I, T>(&known.y[at..][..head_dim], &known.d_y[at..][..head_dim]);
                }
                hide::<I, T>(group, &band, &masks, p);
                let rows = [rows_of(group, &band, p), rows_of(group, &band, d_s)];
                let lanes = [T::Lanes::<I>::load(&lse), T::Lanes::<I>::load(&delta)];
                d_softmax::<I, T>(rows, group.lane, lanes, scale(head_dim));
                // d_q = d_s · k
                let mut d_q = Queries { d_qkv: &mut d_qkv, first: group.queries.start };
                let keys = Right::rows(keys, head_dim).skip(group.keys.start);
                sum::<I, T>(group, &band, d_s, keys, &mut d_q, head_dim, want);
            }

            // d_k += d_sᵀ · q and d_v += pᵀ · d_y, over the queries of each rectangle.
            for Rectangle { keys, lanes } in band.rectangles() {
                if keys.is_empty() {
                    continue;
                }
                let size = Size { m: keys.len(), n: head_dim, k: lanes.len().min(count - lanes.start) };
                for (c, scores, right) in [(&mut *d_k, &*d_s, queries), (&mut *d_v, &*p, d_y)] {
                    let mut c = RowsMut { data: &mut c[keys.start * head_dim..], stride: head_dim };
                    let left = Left::Block { block: &scores[band.row(keys.start)..], lane: lanes.start };
                    product::<I, T>(&mut c, size, left, right.skip(lanes.start), Want::Add);
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
pub fn d_softmax<I: Isa, T: Real>(
    [p, d_s]: [&mut [[T; BLOCK]]; 2],
    lane: usize,
    [lse, delta]: [T::Lanes<I>; 2],
    scale: T,
) {
    let scale = T::Lanes::<I>::splat(scale);
    for (p, d_s) in p.iter_mut().zip(d_s) {
        let (p, d_s) = (&mut p[lane..], &mut d_s[lane..]);
        let probability = T::Lanes::<I>::load(p).sub(lse).exp();
        probability.store(p);
        T::Lanes::<I>::load(d_s).sub(delta).mul(probability.mul(scale)).store(d_s);
    }
}
