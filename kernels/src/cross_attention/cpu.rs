//! One row per key and one lane per token, as in window attention: the softmax over the K keys works within lanes. With
//! K about eight this is memory-bound: 4·K operations per element of `q`, which is read once while `y` is written.

use crate::attention::scale;
use crate::lanes::split;
use crate::product::{BLOCK, Left, Right, RowsMut, Size, pack, packed_len, product, transpose};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};
use std::ops::Range;

/// Tokens of a chunk: one thread takes them at a time and sums the gradient of keys and values over them.
pub const CHUNK: usize = 4 * BLOCK;

/// Sizes of one sample.
#[derive(Clone, Copy)]
pub struct Shape {
    pub tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub latents: usize,
}

impl Shape {
    fn dim(self) -> usize {
        self.heads * self.head_dim
    }

    /// Numbers in the keys and values of a sample.
    fn kv(self) -> usize {
        self.latents * 2 * self.dim()
    }

    /// Numbers in a transposed block of tokens, in its probabilities, and in a head's packed keys.
    fn scratch(self) -> [usize; 3] {
        [self.head_dim * BLOCK, self.latents * BLOCK, packed_len(self.latents, self.head_dim)]
    }

    /// Numbers of scratch memory for the gradient of keys and values: a sum for each chunk of each sample.
    pub fn partials(self, samples: usize) -> usize {
        samples * self.tokens.div_ceil(CHUNK) * self.kv()
    }
}

/// `q` [N, d], `kv` [K, 2d] of one sample.
#[derive(Clone, Copy)]
struct Sample<'a, T> {
    shape: Shape,
    q: &'a [T],
    kv: &'a [T],
}

impl<'a, T: Real> Sample<'a, T> {
    fn new(shape: Shape, sample: usize, q: &'a [T], kv: &'a [T]) -> Self {
        let (rows, kv_len) = (shape.tokens * shape.dim(), shape.kv());
        Self { shape, q: &q[sample * rows..][..rows], kv: &kv[sample * kv_len..][..kv_len] }
    }

    /// Offset of the head's part in a token's row.
    #[inline(always)]
    fn at(self, token: usize, head: usize) -> usize {
        token * self.shape.dim() + head * self.shape.head_dim
    }

    /// Rows from token `first` on.
    #[inline(always)]
    fn queries(self, head: usize, first: usize) -> Right<'a, T> {
        let d = self.shape.dim();
        Right { data: &self.q[first * d..], width: d, column: head * self.shape.head_dim }
    }

    /// Keys and values.
    #[inline(always)]
    fn kv(self, head: usize) -> [Right<'a, T>; 2] {
        let (width, column) = (2 * self.shape.dim(), head * self.shape.head_dim);
        [column, self.shape.dim() + column].map(|column| Right { data: self.kv, width, column })
    }

    #[inline(always)]
    fn pack<I: Isa>(self, rows: Right<'_, T>, panels: &mut [T]) {
        pack::<I, T>(rows, self.shape.latents, self.shape.head_dim, panels);
    }

    /// out [K, 32] = the packed keys or values [K, D] · `block` [D, 32].
    #[inline(always)]
    fn times<I: Isa>(self, panels: &[T], block: &[T], out: &mut [T]) {
        let size = Size { m: self.shape.latents, n: BLOCK, k: self.shape.head_dim };
        let left = Left::Packed { panels, first: 0 };
        let right = Right { data: block, width: BLOCK, column: 0 };
        product::<I, T>(&mut RowsMut { data: out, stride: BLOCK }, size, left, right, Want::Write);
    }

    /// out [tokens, D] = `columns` [K, tokens]ᵀ · `rows` [K, D].
    #[inline(always)]
    fn mix<I: Isa>(self, tokens: usize, columns: &[T], rows: Right<'_, T>, out: &mut [T], how: Want) {
        let size = Size { m: tokens, n: self.shape.head_dim, k: self.shape.latents };
        let left = Left::Transposed { block: columns, lane: 0 };
        product::<I, T>(&mut RowsMut { data: out, stride: self.shape.dim() }, size, left, rows, how);
    }

    /// `p` [K, 32]: the probabilities of up to 32 tokens, whose queries go through `block` [D, 32]; `keys` are packed.
    #[inline(always)]
    fn probabilities<I: Isa>(self, head: usize, tokens: Range<usize>, keys: &[T], block: &mut [T], p: &mut [T]) {
        transpose::<I, T>(self.queries(head, tokens.start), tokens.len(), scale(self.shape.head_dim), block);
        self.times::<I>(keys, block, p);
        for lane in [0, LANES] {
            let mut max = T::Lanes::<I>::splat(T::NEG_INFINITY);
            for scores in p.chunks(BLOCK) {
                max = max.max(T::Lanes::<I>::load(&scores[lane..]));
            }
            let mut sum = T::Lanes::<I>::zero();
            for scores in p.chunks_mut(BLOCK) {
                let weight = T::Lanes::<I>::load(&scores[lane..]).sub(max).exp();
                weight.store(&mut scores[lane..]);
                sum = sum.add(weight);
            }
            let normaliser = T::Lanes::<I>::splat(T::ONE).div(sum);
            for p in p.chunks_mut(BLOCK) {
                T::Lanes::<I>::load(&p[lane..]).mul(normaliser).store(&mut p[lane..]);
            }
        }
    }
}

/// `q` [B, N, d], `kv` [B, K, 2d] → `y` [B, N, d].
pub fn forward<T: Real>(shape: Shape, q: &[T], kv: &[T], y: &mut [T]) {
    let d = shape.dim();
    parallel::chunks(y, shape.tokens * d, |sample, y| {
        let sample = Sample::new(shape, sample, q, kv);
        parallel::chunks(y, CHUNK * d, |chunk, y| {
            let [block, p, panels] = shape.scratch();
            parallel::scratch(block + p + panels, |scratch| {
                simd::dispatch(Forward { sample, first: chunk * CHUNK, y, scratch });
            });
        });
    });
}

/// Some tokens of one sample from `first` on, all heads.
struct Forward<'a, T> {
    sample: Sample<'a, T>,
    first: usize,
    y: &'a mut [T],
    scratch: &'a mut [T],
}

impl<T: Real> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { sample, first, y, scratch } = self;
        let [block, p, keys] = split(scratch, sample.shape.scratch());
        let tokens = y.len() / sample.shape.dim();
        for head in 0..sample.shape.heads {
            let [k, v] = sample.kv(head);
            sample.pack::<I>(k, keys);
            for row in (0..tokens).step_by(BLOCK) {
                let count = BLOCK.min(tokens - row);
                sample.probabilities::<I>(head, first + row..first + row + count, keys, block, p);
                sample.mix::<I>(count, p, v, &mut y[sample.at(row, head)..], Want::Write);
            }
        }
    }
}

/// `q`, `d_y` [B, N, d], `kv` [B, K, 2d] → `d_q` [B, N, d] and `d_kv` [B, K, 2d], if wanted. The gradient of keys and
/// values is summed over the tokens of a chunk in `partials`, then over the chunks in order.
pub fn backward<T: Real>(
    shape: Shape,
    [q, kv, d_y]: [&[T]; 3],
    wants: [Want; 2],
    d_q: &mut [T],
    d_kv: &mut [T],
    partials: &mut [T],
) {
    let d = shape.dim();
    let (rows, sums) = (shape.tokens * d, shape.partials(1));
    let how = wants[0];
    let part = |b: usize, c: usize, d_q: &mut [T], d_kv: &mut [T]| {
        let sample = Sample::new(shape, b, q, kv);
        let tokens = c * CHUNK..shape.tokens.min((c + 1) * CHUNK);
        let d_y = &d_y[b * rows + tokens.start * d..b * rows + tokens.end * d];
        let [block, p, panels] = shape.scratch();
        parallel::scratch(block + 2 * (p + panels), |scratch| {
            simd::dispatch(Backward { sample, first: tokens.start, how, d_y, d_q, d_kv, scratch });
        });
    };
    parallel::chunks2(d_q, rows, partials, sums, |b, d_q, partials| {
        parallel::chunks2(d_q, CHUNK * d, partials, shape.kv(), |c, d_q, d_kv| part(b, c, d_q, d_kv));
    });
    if wants[1].is_wanted() {
        parallel::chunks(d_kv, 2 * d, |row, d_kv| {
            let (sample, latent) = (row / shape.latents, row % shape.latents);
            if wants[1] == Want::Write {
                d_kv.fill(T::ZERO);
            }
            for partial in partials[sample * sums..][..sums].chunks(shape.kv()) {
                d_kv.iter_mut().zip(&partial[latent * 2 * d..]).for_each(|(d_kv, &partial)| *d_kv += partial);
            }
        });
    }
}

/// Some tokens of one sample from `first` on, all heads. `how` is for `d_q`; `d_kv` [K, 2d] is the chunk's own sum; each is empty
/// if it is not wanted.
struct Backward<'a, T> {
    sample: Sample<'a, T>,
    first: usize,
    how: Want,
    d_y: &'a [T],
    d_q: &'a mut [T],
    d_kv: &'a mut [T],
    scratch: &'a mut [T],
}

impl<T: Real> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { sample, first, how, d_y, d_q, d_kv, scratch } = self;
        let (shape, d) = (sample.shape, sample.shape.dim());
        let [block, p, panels] = shape.scratch();
        let [block, p, d_s, keys, values] = split(scratch, [block, p, p, panels, panels]);
        let tokens = d_y.len() / d;
        for head in 0..shape.heads {
            let [k, v] = sample.kv(head);
            sample.pack::<I>(k, keys);
            sample.pack::<I>(v, values);
            for row in (0..tokens).step_by(BLOCK) {
                let count = BLOCK.min(tokens - row);
                sample.probabilities::<I>(head, first + row..first + row + count, keys, block, p);
                let d_y = Right { data: &d_y[row * d..], width: d, column: head * shape.head_dim };
                transpose::<I, T>(d_y, count, T::ONE, block);
                sample.times::<I>(values, block, d_s);
                d_softmax::<I, T>(scale(shape.head_dim), p, d_s);
                if !d_q.is_empty() {
                    // d_q = d_s · k
                    sample.mix::<I>(count, d_s, k, &mut d_q[sample.at(row, head)..], how);
                }
                if !d_kv.is_empty() {
                    // d_k += d_sᵀ · q and d_v += pᵀ · d_y
                    let q = sample.queries(head, first + row);
                    let how = if row == 0 { Want::Write } else { Want::Add };
                    let size = Size { m: shape.latents, n: shape.head_dim, k: count };
                    for (column, left, right) in [(0, &*d_s, q), (d, &*p, d_y)] {
                        let c = &mut d_kv[column + head * shape.head_dim..];
                        let left = Left::Block { block: left, lane: 0 };
                        product::<I, T>(&mut RowsMut { data: c, stride: 2 * d }, size, left, right, how);
                    }
                }
            }
        }
    }
}

/// `d_s` = p·(d_p − Σ p·d_p)·scale in place of d_p; both [K, 32].
#[inline(always)]
fn d_softmax<I: Isa, T: Real>(scale: T, p: &[T], d_s: &mut [T]) {
    let scale = T::Lanes::<I>::splat(scale);
    for lane in [0, LANES] {
        let mut delta = T::Lanes::<I>::zero();
        for (p, d_p) in p.chunks(BLOCK).zip(d_s.chunks(BLOCK)) {
            delta = T::Lanes::<I>::load(&p[lane..]).mul_add(T::Lanes::<I>::load(&d_p[lane..]), delta);
        }
        for (p, d_s) in p.chunks(BLOCK).zip(d_s.chunks_mut(BLOCK)) {
            let p = T::Lanes::<I>::load(&p[lane..]).mul(scale);
            T::Lanes::<I>::load(&d_s[lane..]).sub(delta).mul(p).store(&mut d_s[lane..]);
        }
    }
}
