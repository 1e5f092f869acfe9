//! Softmax and its logarithm over the last axis, and cross-entropy on logits.
//!
//! The largest number of a row is subtracted first, so rows of any size neither overflow nor lose digits. An entry of −∞ gets
//! the probability 0. A row with a NaN or +∞, or of −∞ alone, gives NaN.

mod cpu;
#[cfg(test)]
mod tests;

use crate::case::{Case, Fill, Input, Sizes};
use crate::launch::{THREADS, WARPS, args, over};
use crate::{check, cost};
use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("softmax", include_str!("kernel.cu"));

/// The target of a row that the loss ignores.
const IGNORED: i32 = -1;

/// Numbers of a row that a GPU's warp handles alone; longer rows have a block each.
const SHORT: usize = 512;

/// `x [.., d] → y [.., d]`.
///
/// - Formula: `y = exp(x − m) / Σ exp(x − m)` with `m = max x`, per row
/// - VJP: `d_x = y ⊙ (d_y − Σ y ⊙ d_y)`
/// - Source: elementary
///
/// Memory-bound in f32 if the processor's exponentials keep up; compute-bound in f64 on a CPU. See the module for rows that are
/// not finite.
#[derive(Clone, Copy, Debug)]
pub struct Softmax;

/// `x [.., d] → y [.., d]`, the logarithm of [`Softmax`].
///
/// - Formula: `y = (x − m) − log Σ exp(x − m)` with `m = max x`, per row
/// - VJP: `d_x = d_y − exp(y) · Σ d_y`
/// - Source: elementary
///
/// Bound as [`Softmax`]. See the module for rows that are not finite.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax;

/// `logits [.., V], targets i32 [..] → nll [..], lse [..]`; `[V]` has targets, nll and lse `[1]`. Not differentiable in `targets`.
///
/// - Formula: `lse = log Σ_v exp logits[v]`, `nll = lse − logits[target]`, per row
/// - VJP: `d_logits[v] = d_nll·(exp(logits[v] − lse) − [v = target])`
/// - Source: elementary
///
/// A row whose target is −1 is ignored: its nll, lse and gradient are zero. For other targets outside `0..V` the op panics on
/// the CPU and gives NaN on a GPU. The lse of a row of −∞ alone is −∞, its nll and gradient are NaN. nll and lse have the
/// precision of statistics. To end a language model, [`LmHead`](crate::cross_entropy::LmHead) needs less memory.
///
/// Bound as [`Softmax`].
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy;

/// Specification of the result for `x`.
fn infer(x: Spec) -> Result<Vec<Output>> {
    check::real("x", x)?;
    check::that(x.shape.last() > 0, || format!("x is {x}, must have rows of at least one number"))?;
    Ok(vec![Output { name: "y", spec: x }])
}

fn forward(log: bool, cx: &mut Context, x: &Buffer, y: &mut Buffer) {
    let d = x.shape().last();
    if let Device::Cuda(gpu) = cx.device {
        return by_rows(&**gpu, x, "forward", args![x, usize::from(log), y]);
    }
    with_real!(x.dtype(), T => cpu::forward::<T>(log, d, x.as_slice(), y.as_mut_slice()));
}

fn vjp(log: bool, cx: &mut Context, want: Want, y: &Buffer, d_y: &Buffer, d_x: &mut Buffer) {
    if let Device::Cuda(gpu) = cx.device {
        return by_rows(&**gpu, d_y, "backward", args![y, d_y, usize::from(log), want, d_x]);
    }
    let d = d_y.shape().last();
    with_real!(d_y.dtype(), T => cpu::vjp::<T>(log, d, want, [y.as_slice(), d_y.as_slice()], d_x.as_mut_slice()));
}

/// Launches a kernel with a warp or a block for each row of `x`. Its last arguments are rows, their length, and the warps of a
/// row.
fn by_rows(gpu: &dyn Gpu, x: &Buffer, entry: &'static str, args: &[Arg]) {
    let (rows, d) = (x.shape().rows(), x.shape().last());
    let team = if d <= SHORT { 1 } else { WARPS };
    let args = [args, args![rows, d, team]].concat();
    gpu.launch(&KERNELS.kernel(entry, x.dtype()), Grid::new(rows.div_ceil(WARPS / team), THREADS), &args);
}

impl Op for Softmax {
    check::names!("softmax": x);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        infer(ins[0])
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[], &[0])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        forward(false, cx, ins[0], &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        vjp(false, cx, wants[0], outs[0], d_y, &mut d[0]);
    }

    /// Maximum, difference, exp, sum and factor; product, sum, difference and product.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let n = ins[0].shape.numel();
        cost::of(self, ins, pass, 5 * n, &[4 * n])
    }
}

impl Op for LogSoftmax {
    check::names!("log_softmax": x);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        infer(ins[0])
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[], &[0])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        forward(true, cx, ins[0], &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        vjp(true, cx, wants[0], outs[0], d_y, &mut d[0]);
    }

    /// Maximum, difference, exp, sum and two differences; sum, exp and a fused multiply-add.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let n = ins[0].shape.numel();
        cost::of(self, ins, pass, 6 * n, &[4 * n])
    }
}

/// The target of a row: `None` if the loss ignores it.
///
/// # Panics
/// If it is not an entry of the vocabulary.
fn target(targets: &[i32], row: usize, vocab: usize) -> Option<usize> {
    let target = targets[row];
    let known = usize::try_from(target).ok().filter(|&t| t < vocab);
    assert!(known.is_some() || target == IGNORED, "the target of row {row} is {target}, must be −1 or below {vocab}");
    known
}

impl Op for CrossEntropy {
    check::names!("cross_entropy": logits, targets);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("logits", ins[0])?;
        let rows = match ins[0].shape.dims() {
            [] | [_] => &[1],
            [rows @ .., _] => rows,
        };
        check::that(ins[0].shape.last() > 0, || {
            format!("logits is {}, must have rows of at least one number", ins[0])
        })?;
        check::is("targets", ins[1], DType::I32, rows)?;
        let spec = Spec::new(check::statistic(dtype), rows);
        Ok(vec![Output { name: "nll", spec }, Output { name: "lse", spec }])
    }

    fn differentiable(&self, i: usize) -> bool {
        i == 0
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[0, 1], &[0, 1])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let [nll, lse] = outs else { unreachable!("two outputs") };
        if let Device::Cuda(gpu) = cx.device {
            return by_rows(&**gpu, ins[0], "losses", args![ins[0], ins[1], nll, lse]);
        }
        let vocab = ins[0].shape().last();
        with_real!(ins[0].dtype(), T => {
            let (logits, targets) = (ins[0].as_slice::<T>(), ins[1].as_slice());
            cpu::losses(vocab, logits, targets, nll.as_mut_slice(), lse.as_mut_slice());
        });
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let (d_logits, vocab) = (&mut d[0], ins[0].shape().last());
        if let Device::Cuda(gpu) = cx.device {
            let known = args![ins[0], ins[1], outs[0], outs[1], d_y];
            let args = [known, args![wants[0], &*d_logits, d_logits.len(), vocab]].concat();
            return over(&**gpu, d_logits, &KERNELS, "gradient", &args);
        }
        with_real!(d_y.dtype(), T => {
            let (logits, targets) = (ins[0].as_slice::<T>(), ins[1].as_slice());
            let (nll, lse, d_nll) = (outs[0].as_slice(), outs[1].as_slice(), d_y.as_slice());
            let known = cpu::Known { logits, targets, nll, lse, d_nll };
            cpu::losses_vjp(vocab, known, wants[0], d_logits.as_mut_slice());
        });
    }

    /// Maximum, difference, exp and sum; two differences, exp and factor.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let n = ins[0].shape.numel();
        cost::of(self, ins, pass, 4 * n, &[4 * n, 0])
    }
}

/// Softmax and its logarithm of the residual stream `[B, N, d]`; the cross-entropy of logits `[B, N, V]`, for all tokens and
/// with some ignored; softmax of whole samples.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let hidden = || vec![Input::normal(&[s.batch, s.tokens, s.dim()])];
    let loss = |label: &str, targets: Fill| {
        let logits = Input::normal(&[s.batch, s.tokens, s.vocab]);
        Case::new(label, CrossEntropy, vec![logits, Input::new(&[s.batch, s.tokens], targets)])
    };
    vec![
        Case::new("residual", Softmax, hidden()),
        Case::new("residual", LogSoftmax, hidden()),
        loss("all tokens", Fill::Integers { below: s.vocab }),
        loss("some ignored", Fill::Labels { below: s.vocab }),
        Case::new("long rows", Softmax, vec![Input::normal(&[s.batch, s.tokens * s.dim()])]),
    ]
}
