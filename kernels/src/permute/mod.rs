//! Axes in another order, such as the transpose of a matrix.

mod cpu;

use crate::case::{Case, Input, Sizes};
use crate::launch::{THREADS, args, over};
use crate::{check, cost};
use engine::cuda::{Gpu, Grid, Module};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Result, Spec, Want, with_real};
use std::ops::Range;

pub(crate) static KERNELS: Module = Module::new("permute", include_str!("kernel.cu"));

/// The most axes of a [`Shape`](engine::Shape).
const MOST: usize = 4;

/// `x [n0, n1, ..] → y`, whose axis i is axis `axes[i]` of x. Memory-bound.
///
/// - Formula: `y[j] = x[k]` with `j[i] = k[axes[i]]` for every axis i
/// - VJP: `d_x` is `d_y` with the inverse order
/// - Source: elementary
#[derive(Clone, Debug)]
pub struct Permute {
    /// The axes of x, 0 for the outermost, each once.
    pub axes: Vec<usize>,
}

impl Permute {
    /// Swaps the last two of `rank` axes: the transpose of every matrix.
    pub fn transpose(rank: usize) -> Self {
        let mut axes: Vec<usize> = (0..rank).collect();
        if let [.., row, column] = &mut axes[..] {
            std::mem::swap(row, column);
        }
        Self { axes }
    }
}

impl Op for Permute {
    check::names!("permute": x);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let (axes, rank) = (&self.axes, self.axes.len());
        let dtype = check::real("x", ins[0])?;
        check::rank("x", ins[0], rank)?;
        let once = (0..rank).all(|axis| axes.contains(&axis));
        check::that(once, || format!("axes are {axes:?}, must be 0..{rank} in some order"))?;
        let dims: Vec<usize> = axes.iter().map(|&axis| ins[0].shape.dims()[axis]).collect();
        Ok(vec![Output { name: "y", spec: Spec::new(dtype, &dims) }])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        permute(cx, &self.axes, Want::Write, ins[0], &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let mut inverse = [0; MOST];
        self.axes.iter().enumerate().for_each(|(i, &axis)| inverse[axis] = i);
        permute(cx, &inverse[..self.axes.len()], wants[0], d_y, &mut d[0]);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        cost::of(self, ins, pass, 0, &[0])
    }
}

fn permute(cx: &Context, axes: &[usize], want: Want, from: &Buffer, to: &mut Buffer) {
    if to.is_empty() {
        return;
    }
    let walk = Walk::new(from.shape().dims(), axes);
    match cx.device {
        Device::Cuda(gpu) => walk.launch(&**gpu, want, from, to),
        Device::Cpu(_) => {
            with_real!(from.dtype(), T => cpu::permute::<T>(&walk, want, from.as_slice(), to.as_mut_slice()));
        }
    }
}

/// The axes of the output, outermost first: their sizes, and their strides in the input. Axes of one element are left out, and
/// those that are neighbours in the input too are one; the first ones are filled up with size 1.
#[derive(Debug)]
struct Walk {
    sizes: [usize; MOST],
    strides: [usize; MOST],
}

impl Walk {
    /// For the axes of a tensor that is not empty.
    fn new(dims: &[usize], axes: &[usize]) -> Self {
        let stride = |axis: usize| -> usize { dims[axis + 1..].iter().product() };
        let (mut sizes, mut strides) = ([1; MOST], [0, 0, 0, 1]);
        let mut at = MOST;
        for &axis in axes.iter().rev().filter(|&&axis| dims[axis] > 1) {
            if at == MOST || stride(axis) != sizes[at] * strides[at] {
                at -= 1;
                strides[at] = stride(axis);
            }
            sizes[at] *= dims[axis];
        }
        Self { sizes, strides }
    }

    /// The output's axis that is the innermost of the input, unless it stays the innermost.
    fn across(&self) -> Option<usize> {
        let innermost = self.strides.iter().rposition(|&stride| stride == 1).expect("an innermost axis");
        (innermost + 1 < MOST).then_some(innermost)
    }

    /// The place in the input of number `index` of these axes of the output.
    fn place(&self, axes: Range<usize>, index: usize) -> usize {
        // Division of 32 bits takes less time.
        let mut index = index as u32;
        let mut place = 0;
        for axis in axes.rev() {
            if index == 0 {
                break;
            }
            let size = self.sizes[axis] as u32;
            place += (index % size) as usize * self.strides[axis];
            index /= size;
        }
        place
    }

    fn launch(&self, gpu: &dyn Gpu, want: Want, x: &Buffer, y: &Buffer) {
        let Self { sizes, strides } = self;
        let Some(across) = self.across() else {
            let [_, s1, s2, width] = *sizes;
            let args = args![x, want, y, y.len(), width, s1, s2, strides[0], strides[1], strides[2]];
            return over(gpu, y, &KERNELS, "rows", args);
        };
        // The side of a square in the kernel.
        let squares = |axis: usize| sizes[axis].div_ceil(32);
        let stride = |axis: usize| -> usize { sizes[axis + 1..].iter().product() };
        let [outer, inner] = match across {
            0 => [1, 2],
            1 => [0, 2],
            _ => [0, 1],
        };
        let args = args![
            x,
            want,
            y,
            sizes[3],
            sizes[across],
            strides[3],
            stride(across),
            sizes[inner],
            strides[outer],
            strides[inner],
            stride(outer),
            stride(inner),
        ];
        let blocks = squares(3) * squares(across) * sizes[outer] * sizes[inner];
        gpu.launch(&KERNELS.kernel("squares", x.dtype()), Grid::new(blocks, THREADS), args);
    }
}

/// Names, axes and sizes: the transpose of every sample, heads in front of tokens, keys of heads, and two orders in which no
/// axis stays.
fn orders(s: &Sizes) -> [(&'static str, Vec<usize>, Vec<usize>); 5] {
    let heads = vec![s.batch, s.tokens, s.heads, s.head_dim];
    [
        ("transpose", vec![0, 2, 1], vec![s.batch, s.tokens, s.dim()]),
        ("heads", vec![0, 2, 1, 3], heads.clone()),
        ("keys", vec![0, 2, 3, 1], heads.clone()),
        ("reversed samples", vec![0, 3, 2, 1], heads),
        ("reversed", vec![3, 2, 1, 0], vec![s.latents, s.tokens, s.heads, s.head_dim]),
    ]
}

/// Five orders of axes.
pub fn cases(s: &Sizes) -> Vec<Case> {
    orders(s).map(|(label, axes, dims)| Case::new(label, Permute { axes }, vec![Input::normal(&dims)])).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_all, refuses};

    /// The formula, index by index.
    fn formula<'a>(dims: &'a [usize], axes: &'a [usize]) -> impl Fn(&[Vec<f64>]) -> Vec<f64> + 'a {
        move |x| {
            let permuted: Vec<usize> = axes.iter().map(|&axis| dims[axis]).collect();
            let mut y = vec![0.0; x[0].len()];
            for (k, &value) in x[0].iter().enumerate() {
                let index = |axis: usize| k / dims[axis + 1..].iter().product::<usize>() % dims[axis];
                let at = axes.iter().zip(&permuted).fold(0, |at, (&axis, size)| at * size + index(axis));
                y[at] = value;
            }
            y
        }
    }

    #[test]
    fn every_case_matches_the_formula() {
        // Several squares in both directions, tasks that are divided, and incomplete tiles.
        let large = Sizes { batch: 2, tokens: 71, heads: 2, head_dim: 66, window: 1, latents: 9, ffn: 1, vocab: 2 };
        let long = Sizes { batch: 1, tokens: 1100, heads: 1, head_dim: 18, ..large };
        check_all(cases, &[large, long], |s, number, x| {
            let (_, axes, dims) = &orders(s)[number];
            formula(dims, axes)(x)
        });
    }

    /// Every order of up to four axes, with sizes of one.
    #[test]
    fn every_order() {
        for dims in [vec![], vec![5], vec![3, 4], vec![2, 3, 4], vec![2, 3, 4, 5], vec![17, 1, 2, 33], vec![1, 1, 1, 1]]
        {
            let rank = dims.len();
            for code in 0..rank.pow(rank as u32) {
                let axes: Vec<usize> = (0..rank as u32).map(|i| code / rank.pow(i) % rank).collect();
                if (0..rank).all(|axis| axes.contains(&axis)) {
                    let case =
                        Case::new(format!("{axes:?}"), Permute { axes: axes.clone() }, vec![Input::normal(&dims)]);
                    check(&case, formula(&dims, &axes));
                }
            }
        }
    }

    /// The axes that remain after merging, and their strides.
    #[test]
    fn neighbours_are_one_axis() {
        let walk = |dims: &[usize], axes: &[usize]| {
            let Walk { sizes, strides } = Walk::new(dims, axes);
            (sizes, strides)
        };
        assert_eq!(walk(&[2, 3, 4, 5], &[0, 1, 2, 3]), ([1, 1, 1, 120], [0, 0, 0, 1]));
        assert_eq!(walk(&[2, 3, 4, 5], &[2, 3, 0, 1]), ([1, 1, 20, 6], [0, 0, 1, 20]));
        assert_eq!(walk(&[2, 1, 4, 5], &[3, 0, 1, 2]), ([1, 1, 5, 8], [0, 0, 1, 5]));
        assert_eq!(walk(&[2, 3, 4, 5], &[0, 2, 1, 3]), ([2, 4, 3, 5], [60, 5, 20, 1]));
        assert_eq!(walk(&[1, 1], &[1, 0]), ([1, 1, 1, 1], [0, 0, 0, 1]));
    }

    #[test]
    fn axes_are_a_permutation() {
        let refused = |axes: &[usize], ins, message| refuses(&Permute { axes: axes.to_vec() }, ins, message);
        refused(&[1, 0], "f32[2, 3, 4]", "x is f32[2, 3, 4], must have 2 dimensions");
        refused(&[0, 0, 1], "f32[2, 3, 4]", "axes are [0, 0, 1], must be 0..3 in some order");
        refused(&[0, 3, 1], "f32[2, 3, 4]", "axes are [0, 3, 1], must be 0..3 in some order");
        assert_eq!(Permute::transpose(3).axes, [0, 2, 1]);
        assert_eq!(Permute::transpose(1).axes, [0]);
    }
}
