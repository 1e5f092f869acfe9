//! Rotary position embedding on adjacent pairs.

mod cpu;

use crate::case::{Case, Fill, Input, Sizes};
use crate::launch::{THREADS, args, over};
use crate::{check, cost};
use engine::cuda::{Arg, Grid, Module};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("rope", include_str!("kernel.cu"));

/// `positions i32[N] → table [N, D]`, computed in f64 and rounded.
///
/// - Formula: `table[n, 2i] = cos φ`, `table[n, 2i+1] = sin φ`, `φ = positions[n] · theta^(−2i/D)`
/// - VJP: none, positions are integers
/// - Source: Su et al., "RoFormer", arXiv 2104.09864
/// - Check: against the formula, number by number
#[derive(Clone, Copy, Debug)]
pub struct RopeTable {
    /// Width of a head D, even.
    pub head_dim: usize,
    /// Base of the frequencies, usually 10000.
    pub theta: f64,
    /// Element type of the table.
    pub dtype: DType,
}

impl Op for RopeTable {
    check::names!("rope_table": positions);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::rank("positions", ins[0], 1)?;
        let n = ins[0].shape.numel();
        check::is("positions", ins[0], DType::I32, &[n])?;
        even(self.head_dim)?;
        check::that(self.dtype.is_float(), || format!("the table cannot hold {}, must hold floats", self.dtype))?;
        let theta = self.theta;
        check::that(theta.is_finite() && theta > 0.0, || format!("theta is {theta}, must be a positive number"))?;
        Ok(vec![Output { name: "table", spec: Spec::new(self.dtype, &[n, self.head_dim]) }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        false
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let (n, kernel) = (ins[0].len(), KERNELS.kernel("table", self.dtype));
            let args = args![ins[0], Arg::F64(self.theta), &outs[0], n, self.head_dim];
            return gpu.launch(&kernel, Grid::covering(n * self.head_dim / 2, THREADS), args);
        }
        with_real!(self.dtype, T => {
            cpu::table::<T>(self.theta, self.head_dim, ins[0].as_slice(), outs[0].as_mut_slice());
        })
    }

    fn vjp(&self, _: &mut Context, _: &[Want], _: &[&Buffer], _: &[&Buffer], _: &Buffer, _: &mut [Buffer]) {}

    /// A product, a cosine and a sine per pair.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        cost::of(self, ins, pass, 3 * ins[0].shape.numel() * self.head_dim / 2, &[])
    }
}

/// `x [B, N, H'·D], table [N, D] → y [B, N, H'·D]`: the first `rotated` of a row's `heads` heads are rotated, the
/// others copied. Memory-bound: three operations per element, which is read and written once.
///
/// - Formula: for pair i of a head `y[2i] = x[2i]·cos φ − x[2i+1]·sin φ`, `y[2i+1] = x[2i]·sin φ + x[2i+1]·cos φ`
/// - VJP: `d_x` is `d_y` rotated by −φ
/// - Source: Su et al., "RoFormer", arXiv 2104.09864
///
/// So one op handles fused projections: it rotates two thirds of queries, keys and values side by side, and half of
/// keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Heads H' in a row of x.
    pub heads: usize,
    /// How many of these heads are rotated.
    pub rotated: usize,
}

impl Op for Rope {
    check::names!("rope": x, table);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("x", ins[0])?;
        check::rank("x", ins[0], 3)?;
        let head_dim = check::heads("x", ins[0], self.heads)?;
        even(head_dim)?;
        check::is("table", ins[1], check::statistic(dtype), &[ins[0].shape.dims()[1], head_dim])?;
        let Self { heads, rotated } = self;
        check::that(rotated <= heads, || format!("rotates {rotated} heads, must be at most {heads}"))?;
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn differentiable(&self, i: usize) -> bool {
        i == 0
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[1], &[])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        self.rotate(cx, 1.0, Want::Write, ins[0], ins[1], &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        self.rotate(cx, -1.0, wants[0], d_y, ins[1], &mut d[0]);
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let flops = 3 * ins[0].shape.numel() / self.heads * self.rotated;
        cost::of(self, ins, pass, flops, &[flops])
    }
}

impl Rope {
    /// By φ, or by −φ if `sign` is −1.
    fn rotate(&self, cx: &Context, sign: f32, want: Want, x: &Buffer, table: &Buffer, y: &mut Buffer) {
        let head_dim = table.shape().last();
        let sizes = [head_dim, self.heads * head_dim, self.rotated * head_dim];
        match cx.device {
            Device::Cuda(gpu) => {
                let (tokens, [head_dim, width, rotated]) = (table.shape().rows(), sizes);
                let args = args![x, table, Arg::F32(sign), want, y, x.len(), tokens, head_dim, width, rotated];
                over(&**gpu, x, &KERNELS, "rotate", args);
            }
            Device::Cpu(_) => with_real!(x.dtype(), T => {
                cpu::rope::<T>(sizes, sign, want, x.as_slice(), table.as_slice(), y.as_mut_slice());
            }),
        }
    }
}

fn even(head_dim: usize) -> Result<()> {
    check::that(head_dim > 0 && head_dim.is_multiple_of(2), || {
        format!("heads are {head_dim} wide, must be even to be rotated in pairs")
    })
}

/// The table, and the three shapes that a model rotates: fused queries, keys and values; queries; fused keys and values.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let table = |n| Input::statistic(&[n, s.head_dim], Fill::NORMAL);
    let x = |n, heads| Input::normal(&[s.batch, n, heads * s.head_dim]);
    let h = s.heads;
    let positions = Input::new(&[s.tokens], Fill::Integers { below: 1024 });
    let op = RopeTable { head_dim: s.head_dim, theta: 10_000.0, dtype: DType::F32 };
    vec![
        Case::new("table", op, vec![positions]),
        Case::new("qkv", Rope { heads: 3 * h, rotated: 2 * h }, vec![x(s.tokens, 3 * h), table(s.tokens)]),
        Case::new("q", Rope { heads: h, rotated: h }, vec![x(s.tokens, h), table(s.tokens)]),
        Case::new("kv", Rope { heads: 2 * h, rotated: h }, vec![x(s.latents, 2 * h), table(s.latents)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, distance, forward, refuses, sizes};

    /// The rotation as a matrix per pair, from the definition of its elements.
    fn formula(rotated: usize, width: usize, x: &[f64], table: &[f64], [tokens, head_dim]: [usize; 2]) -> Vec<f64> {
        let turned = |at: usize| {
            let (row, column) = (at / width % tokens, at % width);
            let angle = |part| table[row * head_dim + column % head_dim / 2 * 2 + part];
            match column {
                _ if column >= rotated => x[at],
                _ if column % 2 == 0 => x[at] * angle(0) - x[at + 1] * angle(1),
                _ => x[at - 1] * angle(1) + x[at] * angle(0),
            }
        };
        (0..x.len()).map(turned).collect()
    }

    #[test]
    fn matches_the_formula() {
        let long = Sizes { tokens: 2 * cpu::ROWS + 5, ..sizes()[0] };
        for s in sizes().into_iter().chain([long]) {
            let rotated = [2 * s.dim(), s.dim(), s.dim()];
            for (case, rotated) in cases(&s)[1..].iter().zip(rotated) {
                let (width, table) = (case.ins[0].dims[2], [case.ins[1].dims[0], s.head_dim]);
                check(case, |ins| formula(rotated, width, &ins[0], &ins[1], table));
            }
        }
    }

    /// More rows than one chunk.
    #[test]
    fn table_holds_the_angles() {
        let n = 5 * cpu::ROWS + 3;
        let positions: Vec<i32> = (0..n as i32).map(|i| 7 * i).collect();
        let op = RopeTable { head_dim: 4, theta: 10_000.0, dtype: DType::F64 };
        let table = forward(&op, &[&Buffer::from_slice(&[n], &positions)])[0].to_f64();
        for (row, &position) in table.chunks(4).zip(&positions) {
            let (fast, slow) = (f64::from(position), f64::from(position) / 100.0);
            let expected = [fast.cos(), fast.sin(), slow.cos(), slow.sin()];
            assert!(distance(row, &expected) < 1e-13, "{row:?} {expected:?}");
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let rope = |rotated| Rope { heads: 3, rotated };
        let heads = "x is f32[2, 5, 10], its last size must be a multiple of 3 heads";
        refuses(&rope(2), "f32[2, 5, 10] f32[5, 4]", heads);
        refuses(&rope(2), "f32[2, 5, 9] f32[5, 3]", "heads are 3 wide, must be even to be rotated in pairs");
        refuses(&rope(4), "f32[2, 5, 12] f32[5, 4]", "rotates 4 heads, must be at most 3");
        let table = RopeTable { head_dim: 4, theta: 0.0, dtype: DType::F32 };
        refuses(&table, "i32[5]", "theta is 0, must be a positive number");
    }
}
