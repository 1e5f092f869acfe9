//! Rotary position embedding on adjacent pairs.

mod cpu;
pub(crate) mod cuda;

use crate::case::{Case, Fill, Input, Sizes};
use crate::{check, cost};
use engine::{Buffer, Context, Cost, DType, Device, Error, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

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
    /// Base of the frequencies, 10000 as a rule.
    pub theta: f64,
    /// Element type of the table, which positions do not tell.
    pub dtype: DType,
}

impl Op for RopeTable {
    fn name(&self) -> &'static str {
        "rope_table"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["positions"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        check::rank("positions", ins[0], 1)?;
        let n = ins[0].shape.numel();
        check::is("positions", ins[0], DType::I32, &[n])?;
        even(self.head_dim)?;
        if !self.dtype.is_float() {
            return Err(Error::usage(format!("the table cannot hold {}, must hold floats", self.dtype)));
        }
        if !(self.theta.is_finite() && self.theta > 0.0) {
            return Err(Error::usage(format!("theta is {}, must be a positive number", self.theta)));
        }
        Ok(vec![Output { name: "table", spec: Spec::new(self.dtype, &[n, self.head_dim]) }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        false
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::default()
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return cuda::table(&**gpu, self.theta, ins[0], &mut outs[0]);
        }
        with_real!(self.dtype, T => {
            cpu::table::<T>(self.theta, self.head_dim, ins[0].as_slice(), outs[0].as_mut_slice());
        })
    }

    fn vjp(&self, _: &mut Context, _: &[Want], _: &[&Buffer], _: &[&Buffer], _: &Buffer, _: &mut [Buffer]) {}

    /// A product, a cosine and a sine per pair; the powers of theta are few.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let numbers = ins[0].shape.numel() * self.head_dim;
        let bytes = ins[0].bytes() + numbers * self.dtype.size();
        let forward = Cost { flops: 3 * numbers as u64 / 2, bytes: bytes as u64 };
        cost::of_pass(pass, forward, |_| Cost::default())
    }
}

/// `x [B, N, H'·D], table [N, D] → y [B, N, H'·D]`: the first `rotated` of a row's `heads` heads are rotated, the others
/// copied. Bound by memory: three operations per element that is read and written once.
///
/// - Formula: for pair i of a head `y[2i] = x[2i]·cos φ − x[2i+1]·sin φ`, `y[2i+1] = x[2i]·sin φ + x[2i+1]·cos φ`
/// - VJP: `d_x` is `d_y` rotated by −φ
/// - Source: Su et al., "RoFormer", arXiv 2104.09864
///
/// The queries and keys of fused projections are rotated in place of three ops: queries, keys and values of
/// self-attention are 3H heads of which 2H are rotated, keys and values of the latents 2H of which H are.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Heads H' in a row of x.
    pub heads: usize,
    /// How many of them are rotated.
    pub rotated: usize,
}

impl Op for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "table"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        let dtype = check::real("x", ins[0])?;
        check::rank("x", ins[0], 3)?;
        let head_dim = check::heads("x", ins[0], self.heads)?;
        even(head_dim)?;
        check::is("table", ins[1], check::statistic(dtype), &[ins[0].shape.dims()[1], head_dim])?;
        if self.rotated > self.heads {
            return Err(Error::usage(format!("rotates {} heads, must be at most all {}", self.rotated, self.heads)));
        }
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn differentiable(&self, i: usize) -> bool {
        i == 0
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        if wants[0].is_wanted() { Reads::of(&[1], &[]) } else { Reads::default() }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let (layout, turn) = (self.layout(ins[1]), cpu::Turn::Forth);
        if let Device::Cuda(gpu) = cx.device {
            return cuda::rope(&**gpu, layout, turn, Want::Write, ins[0], ins[1], &mut outs[0]);
        }
        with_real!(ins[0].dtype(), T => {
            let (x, table) = (ins[0].as_slice(), ins[1].as_slice());
            cpu::rope::<T>(layout, turn, Want::Write, x, table, outs[0].as_mut_slice());
        })
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        _outs: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        if !wants[0].is_wanted() {
            return;
        }
        let (layout, turn) = (self.layout(ins[1]), cpu::Turn::Back);
        if let Device::Cuda(gpu) = cx.device {
            return cuda::rope(&**gpu, layout, turn, wants[0], d_out, ins[1], &mut d_ins[0]);
        }
        with_real!(d_out.dtype(), T => {
            let (d_y, table) = (d_out.as_slice(), ins[1].as_slice());
            cpu::rope::<T>(layout, turn, wants[0], d_y, table, d_ins[0].as_mut_slice());
        })
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let [x, table] = ins else { unreachable!("two inputs") };
        let numbers = x.shape.numel();
        let rotation =
            Cost { flops: 3 * (numbers / self.heads * self.rotated) as u64, bytes: (x.bytes() + table.bytes()) as u64 };
        let forward = rotation + cost::store(Want::Write, numbers, x.bytes());
        cost::of_pass(pass, forward, |wants| match wants[0] {
            Want::Skip => Cost::default(),
            want => rotation + cost::store(want, numbers, x.bytes()),
        })
    }
}

impl Rope {
    fn layout(&self, table: &Buffer) -> cpu::Layout {
        let head_dim = table.shape().last();
        cpu::Layout { head_dim, width: self.heads * head_dim, rotated: self.rotated * head_dim }
    }
}

fn even(head_dim: usize) -> Result<()> {
    if head_dim > 0 && head_dim.is_multiple_of(2) {
        return Ok(());
    }
    Err(Error::usage(format!("heads are {head_dim} wide, must be even to be rotated in pairs")))
}

/// The table, and the three shapes that a model rotates: fused queries, keys and values; queries; fused keys and values.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let table = |n| Input::statistic(&[n, s.head_dim], Fill::NORMAL);
    let x = |n, heads| Input::new(&[s.batch, n, heads * s.head_dim], Fill::NORMAL);
    let h = s.heads;
    let positions = Input::new(&[s.tokens], Fill::Tokens { below: 1024 });
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
    use crate::testing;

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
        for s in testing::sizes() {
            let rotated = [2 * s.dim(), s.dim(), s.dim()];
            for (case, rotated) in cases(&s)[1..].iter().zip(rotated) {
                let (width, table) = (case.ins[0].dims[2], [case.ins[1].dims[0], s.head_dim]);
                testing::check(case, |ins| formula(rotated, width, &ins[0], &ins[1], table));
            }
        }
    }

    /// Known angles, more rows than one chunk, and distances in the place of positions: a rotated query and key have the
    /// product of their contents turned by the difference of their positions alone.
    #[test]
    fn table_holds_the_angles() {
        let n = 5 * cpu::ROWS + 3;
        let positions: Vec<i32> = (0..n as i32).map(|i| 7 * i).collect();
        let op = RopeTable { head_dim: 4, theta: 10_000.0, dtype: DType::F64 };
        let table = testing::forward(&op, &[&Buffer::from_slice(&[n], &positions)])[0].to_f64();
        for (row, &position) in table.chunks(4).zip(&positions) {
            let (fast, slow) = (f64::from(position), f64::from(position) / 100.0);
            let expected = [fast.cos(), fast.sin(), slow.cos(), slow.sin()];
            assert!(testing::distance(row, &expected) < 1e-13, "{row:?} {expected:?}");
        }
    }

    #[test]
    fn the_backward_rotation_undoes_the_forward_one() {
        let n = 2 * cpu::ROWS + 5;
        let positions: Vec<i32> = (0..n as i32).collect();
        let op = RopeTable { head_dim: 6, theta: 100.0, dtype: DType::F64 };
        let table = testing::forward(&op, &[&Buffer::from_slice(&[n], &positions)]).remove(0);
        let op = Rope { heads: 3, rotated: 2 };
        let x = Input::new(&[2, n, 18], Fill::NORMAL).buffer(DType::F64, engine::rng::Stream::new(1, 1));
        let y = testing::forward(&op, &[&x, &table]);
        let back = testing::vjp(&op, &[Want::Write, Want::Skip], &[&x, &table], &y, &y[0]);
        assert!(testing::distance(&back[0].to_f64(), &x.to_f64()) < 1e-14);
        assert!(testing::distance(&y[0].to_f64(), &x.to_f64()) > 0.1);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let f32 = |dims: &[usize]| Spec::new(DType::F32, dims);
        let error = |op: &dyn Op, ins: &[Spec]| op.infer(ins).unwrap_err().to_string();
        let rope = Rope { heads: 3, rotated: 2 };
        assert_eq!(
            error(&rope, &[f32(&[2, 5, 10]), f32(&[5, 4])]),
            "x is f32[2, 5, 10], its last size must be a multiple of 3 heads"
        );
        assert_eq!(error(&rope, &[f32(&[2, 5, 12]), f32(&[6, 4])]), "table is f32[6, 4], must be f32[5, 4]");
        assert_eq!(
            error(&rope, &[f32(&[2, 5, 9]), f32(&[5, 3])]),
            "heads are 3 wide, must be even to be rotated in pairs"
        );
        let rope = Rope { heads: 3, rotated: 4 };
        assert_eq!(error(&rope, &[f32(&[2, 5, 12]), f32(&[5, 4])]), "rotates 4 heads, must be at most all 3");
        let table = RopeTable { head_dim: 4, theta: 0.0, dtype: DType::F32 };
        assert_eq!(error(&table, &[Spec::new(DType::I32, &[5])]), "theta is 0, must be a positive number");
        assert_eq!(error(&table, &[f32(&[5])]), "positions is f32[5], must be i32[5]");
    }
}
