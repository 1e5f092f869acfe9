//! Small ops of this crate, with which random graphs surround the tested op. f64 on the CPU only.

use crate::point::number;
use engine::case::{Case, Fill, Input};
use engine::{Buffer, Context, Cost, DType, Error, Op, Output, Pass, Reads, Result, Spec, Want};
use std::fmt;
use std::ops::Range;

/// A smooth function of every number, in f64.
#[derive(Clone)]
pub enum Small {
    /// a + b.
    Add,
    /// a ⊙ b.
    Mul,
    /// Maps all numbers into an open interval by a hyperbolic tangent; without bounds it is the tangent itself.
    Into(Range<f64>),
}

/// Rust code, as printed tests need it.
impl fmt::Debug for Small {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add => f.write_str("Small::Add"),
            Self::Mul => f.write_str("Small::Mul"),
            Self::Into(Range { start, end }) => write!(f, "Small::Into({}..{})", number(*start), number(*end)),
        }
    }
}

/// The cases of all small ops, for tensors of one shape.
pub(crate) fn cases(dims: &[usize]) -> Vec<Case> {
    let ops = [Small::Add, Small::Mul, Small::Into(f64::NEG_INFINITY..f64::INFINITY)];
    ops.into_iter().map(|op| Case::new("", op.clone(), vec![Input::normal(dims); op.arguments().len()])).collect()
}

/// The bounds from which a fill draws, if it has any.
pub(crate) fn bounds(fill: &Fill) -> Option<Range<f64>> {
    match *fill {
        Fill::Between { low, high } => Some(low..high),
        Fill::Positive => Some(0.0..f64::INFINITY),
        _ => None,
    }
}

/// Value and slope of [`Small::Into`].
fn into(Range { start: low, end: high }: &Range<f64>, x: f64) -> [f64; 2] {
    let s = x.tanh();
    let slope = 1.0 - s * s;
    let (up, down) = ((2.0 * s).exp(), (-2.0 * s).exp());
    match (low.is_finite(), high.is_finite()) {
        (true, true) => [low + (high - low) * 0.5 * (1.0 + s), (high - low) * 0.5 * slope],
        (true, false) => [low + up, 2.0 * up * slope],
        (false, true) => [high - down, 2.0 * down * slope],
        (false, false) => [s, slope],
    }
}

impl Op for Small {
    fn name(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Mul => "mul",
            Self::Into(_) => "into",
        }
    }

    fn arguments(&self) -> &'static [&'static str] {
        if let Self::Into(_) = self { &["x"] } else { &["a", "b"] }
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        if ins.iter().any(|x| x.dtype != DType::F64 || *x != ins[0]) {
            return Err(Error::usage("takes tensors of f64 of one shape"));
        }
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        match self {
            Self::Add => Reads::default(),
            Self::Mul => Reads { ins: u16::from(wants[1].is_wanted()) | u16::from(wants[0].is_wanted()) << 1, outs: 0 },
            Self::Into(_) => Reads::of(&[0], &[]),
        }
    }

    fn passes_through(&self, _: usize) -> bool {
        matches!(self, Self::Add)
    }

    fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let [a, b] = [ins[0], ins[ins.len() - 1]].map(|x| x.as_slice::<f64>());
        for (i, y) in outs[0].as_mut_slice::<f64>().iter_mut().enumerate() {
            *y = match self {
                Self::Add => a[i] + b[i],
                Self::Mul => a[i] * b[i],
                Self::Into(interval) => into(interval, a[i])[0],
            };
        }
    }

    fn vjp(&self, _: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let d_y = d_y.as_slice::<f64>();
        for k in (0..wants.len()).filter(|&k| wants[k].is_wanted()) {
            for (i, d) in d[k].as_mut_slice::<f64>().iter_mut().enumerate() {
                let slope = match self {
                    Self::Add => 1.0,
                    Self::Mul => ins[1 - k].as_slice::<f64>()[i],
                    Self::Into(interval) => into(interval, ins[0].as_slice::<f64>()[i])[1],
                };
                *d = if wants[k] == Want::Add { *d } else { 0.0 } + d_y[i] * slope;
            }
        }
    }

    fn cost(&self, ins: &[Spec], _: Pass) -> Cost {
        let bytes = ins.iter().map(Spec::bytes).sum::<usize>() + ins[0].bytes();
        Cost { flops: ins[0].shape.numel() as u64, bytes: bytes as u64 }
    }
}
