//! Wrong gradients, planted to see whether the check finds them: one that finds nothing proves nothing.

use crate::property::Cases;
use crate::strategies::Point;
use autograd::gradcheck::{Failure, Options, check_op};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want};
use kernels::case::Sizes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Changes a gradient, the last argument, knowing the inputs, the outputs and the result's gradient.
pub type Change = fn(&[&Buffer], &[&Buffer], &[f64], &mut [f64]);

/// A mistake in the gradient of one input.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The other sign.
    Sign,
    /// The matrix of the last dimension and all others, in the order of its transpose.
    Transposed,
    /// One element of the result contributes nothing.
    MissingTerm,
    /// Every row is its neighbour's; of one row, every element.
    OffByOne,
    /// Written where it should be added.
    NotAccumulated,
    /// A mean over rows in the place of a sum.
    MeanForSum,
    /// Every row is the first; of one row, every element.
    FirstForAll,
    /// From the residuals of an earlier forward pass; of an op that keeps none, from an earlier pass's inputs.
    Stale,
    /// One op only: the VJP is that of another op, made for the same sizes.
    VjpOf {
        /// Name of the op that has the fault.
        op: &'static str,
        /// What is wrong.
        name: &'static str,
        /// The op whose VJP it is.
        other: fn(&Sizes) -> Arc<dyn Op>,
    },
    /// One op only: the VJP sees its inputs changed so.
    Sees {
        /// Name of the op that has the fault.
        op: &'static str,
        /// What is wrong.
        name: &'static str,
        /// Changes the inputs.
        change: fn(&mut [Buffer]),
    },
    /// One op only: the gradient is changed so, knowing the inputs, the result and its gradient.
    Changes {
        /// Name of the op that has the fault.
        op: &'static str,
        /// What is wrong.
        name: &'static str,
        /// Number of the input whose gradient is wrong.
        input: usize,
        /// Changes the gradient.
        change: Change,
    },
}

/// The faults that any op can have.
pub const GENERIC: &[Fault] = &[
    Fault::Sign,
    Fault::Transposed,
    Fault::MissingTerm,
    Fault::OffByOne,
    Fault::NotAccumulated,
    Fault::MeanForSum,
    Fault::FirstForAll,
    Fault::Stale,
];

impl Fault {
    /// What is wrong, in a few words.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Transposed => "transposed",
            Self::MissingTerm => "missing term",
            Self::OffByOne => "off by one",
            Self::NotAccumulated => "not accumulated",
            Self::MeanForSum => "mean for sum",
            Self::FirstForAll => "first for all",
            Self::Stale => "stale",
            Self::VjpOf { name, .. } | Self::Sees { name, .. } | Self::Changes { name, .. } => name,
        }
    }

    /// The op that alone can have it.
    pub fn op(&self) -> Option<&'static str> {
        match self {
            Self::VjpOf { op, .. } | Self::Sees { op, .. } | Self::Changes { op, .. } => Some(op),
            _ => None,
        }
    }
}

/// What became of a planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The check found it.
    Caught,
    /// It changed gradients, and the check passed.
    Survived,
    /// It changed no gradient at any point: there was nothing to find.
    Harmless,
}

/// A fault, where it was planted, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planted {
    /// Name of the op.
    pub op: &'static str,
    /// Name of the input whose gradient was wrong.
    pub input: &'static str,
    /// Name of the fault.
    pub fault: &'static str,
    /// What became of it.
    pub outcome: Outcome,
}

/// Plants `fault` into the gradient of input `input` of case number `k` and checks it at `points` until it is found.
pub(crate) fn try_out(cases: Cases, k: usize, input: usize, fault: &Fault, points: &[Point]) -> Outcome {
    let mut struck = false;
    for point in points {
        let Some(case) = cases(&point.sizes).into_iter().nth(k) else { continue };
        let ins = point.buffers(&case);
        let faulty = Faulty::new(case.op, input, fault.clone(), &point.sizes);
        let result = check_op(&faulty, &ins, &Options { seed: point.seed, ..Options::default() });
        struck |= faulty.struck.load(Ordering::Relaxed);
        if let Err(Failure::Wrong(_)) = result {
            return Outcome::Caught;
        }
    }
    if struck { Outcome::Survived } else { Outcome::Harmless }
}

/// An op with a fault in its VJP. It neither fuses nor passes gradients through, so that central differences must find it.
#[derive(Debug)]
pub struct Faulty {
    op: Box<dyn Op>,
    input: usize,
    fault: Fault,
    other: Option<Arc<dyn Op>>,
    /// Whether a gradient was wrong yet.
    struck: AtomicBool,
}

impl Faulty {
    /// `op`, made for these sizes, with `fault` in the gradient of input number `input`.
    pub fn new(op: Box<dyn Op>, input: usize, fault: Fault, sizes: &Sizes) -> Self {
        let other = if let Fault::VjpOf { other, .. } = &fault { Some(other(sizes)) } else { None };
        Self { op, input, fault, other, struck: AtomicBool::new(false) }
    }

    /// The inputs or residuals that the faulty VJP sees, if not the true ones.
    fn seen(&self, cx: &mut Context, ins: &[&Buffer]) -> Option<(Vec<Buffer>, Option<Vec<Buffer>>)> {
        let mut changed: Vec<Buffer> = ins.iter().map(|&b| b.clone()).collect();
        match &self.fault {
            Fault::Sees { change, .. } => {
                change(&mut changed);
                Some((changed, None))
            }
            Fault::Stale => {
                changed.iter_mut().for_each(earlier);
                let wants: Vec<Want> = (0..ins.len()).map(|i| self.only(i, Want::Write)).collect();
                if self.op.reads(&wants).outs == 0 {
                    return Some((changed, None));
                }
                let specs: Vec<Spec> = ins.iter().map(|b| b.spec()).collect();
                let outputs = self.op.infer(&specs).ok()?;
                let mut outs: Vec<Buffer> = outputs.iter().map(|o| Buffer::new(o.spec)).collect();
                self.op.forward(cx, &changed.iter().collect::<Vec<_>>(), &mut outs);
                Some((ins.iter().map(|&b| b.clone()).collect(), Some(outs)))
            }
            _ => None,
        }
    }

    fn only(&self, i: usize, want: Want) -> Want {
        if i == self.input { want } else { Want::Skip }
    }

    /// The gradient of the faulty input as `op` has it.
    fn gradient(&self, op: &dyn Op, cx: &mut Context, ins: &[&Buffer], outs: &[&Buffer], d_out: &Buffer) -> Buffer {
        let wants: Vec<Want> = (0..ins.len()).map(|i| self.only(i, Want::Write)).collect();
        let mut d_ins: Vec<Buffer> = ins
            .iter()
            .enumerate()
            .map(|(i, b)| if i == self.input { Buffer::new(b.spec()) } else { Buffer::empty() })
            .collect();
        op.vjp(cx, &wants, ins, outs, d_out, &mut d_ins);
        d_ins.swap_remove(self.input)
    }

    fn distort(&self, ins: &[&Buffer], outs: &[&Buffer], d_out: &Buffer, g: &mut [f64]) {
        let shape = ins[self.input].shape();
        let (rows, width) = (shape.rows(), shape.last());
        match &self.fault {
            Fault::Sign => g.iter_mut().for_each(|x| *x = -*x),
            Fault::Transposed => {
                let old = g.to_vec();
                g.iter_mut().enumerate().for_each(|(k, x)| *x = old[k % rows * width + k / rows]);
            }
            Fault::OffByOne => g.rotate_right(if rows > 1 { width } else { 1 }),
            Fault::MeanForSum => {
                let n = rows.max(d_out.shape().rows()) as f64;
                g.iter_mut().for_each(|x| *x /= n);
            }
            Fault::FirstForAll => {
                let first = g[..if rows > 1 { width } else { 1 }].to_vec();
                g.chunks_mut(first.len()).for_each(|row| row.copy_from_slice(&first));
            }
            Fault::Changes { change, input, .. } if *input == self.input => {
                change(ins, outs, d_out.as_slice(), g);
            }
            _ => {}
        }
    }
}

/// What an input may have been a step ago.
fn earlier(buffer: &mut Buffer) {
    if buffer.dtype() == DType::I32 {
        buffer.as_mut_slice::<i32>().rotate_left(1);
    } else {
        let values: Vec<f64> = buffer.to_f64().iter().map(|x| 0.9 * x + 0.05).collect();
        buffer.set_f64(&values);
    }
}

impl Op for Faulty {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn arguments(&self) -> &'static [&'static str] {
        self.op.arguments()
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        self.op.infer(ins)
    }

    fn differentiable(&self, i: usize) -> bool {
        self.op.differentiable(i)
    }

    fn reads(&self, _: &[Want]) -> Reads {
        Reads { ins: u16::MAX, outs: u16::MAX }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        self.op.forward(cx, ins, outs);
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        outs: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        let mut others = wants.to_vec();
        let want = std::mem::replace(&mut others[self.input], Want::Skip);
        if others.iter().any(|want| want.is_wanted()) {
            self.op.vjp(cx, &others, ins, outs, d_out, d_ins);
        }
        if !want.is_wanted() {
            return;
        }
        let right = self.gradient(&*self.op, cx, ins, outs, d_out).to_f64();
        let mut d_seen = d_out.clone();
        if let (Fault::MissingTerm, Some(last)) = (&self.fault, d_seen.as_mut_slice::<f64>().last_mut()) {
            *last = 0.0;
        }
        let seen = self.seen(cx, ins);
        let (ins_seen, outs_seen): (Vec<&Buffer>, Vec<&Buffer>) = match &seen {
            None => (ins.to_vec(), outs.to_vec()),
            Some((ins, None)) => (ins.iter().collect(), outs.to_vec()),
            Some((ins, Some(outs))) => (ins.iter().collect(), outs.iter().collect()),
        };
        let op = self.other.as_deref().unwrap_or(&*self.op);
        let mut wrong = self.gradient(op, cx, &ins_seen, &outs_seen, &d_seen).to_f64();
        self.distort(ins, outs, d_out, &mut wrong);
        let forgets = matches!(self.fault, Fault::NotAccumulated);
        if wrong != right || (forgets && want == Want::Add) {
            self.struck.store(true, Ordering::Relaxed);
        }
        for (d, g) in d_ins[self.input].as_mut_slice::<f64>().iter_mut().zip(wrong) {
            *d = if want == Want::Add && !forgets { *d } else { 0.0 } + g;
        }
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        let (Pass::Vjp(wants) | Pass::Fused(wants)) = pass else { return self.op.scratch(device, ins, pass) };
        // Each gradient is computed alone as well, and the forward pass once more.
        let alone: Vec<Want> = (0..wants.len()).map(|i| self.only(i, Want::Write)).collect();
        let ops = [Some(&*self.op), self.other.as_deref()];
        let passes = [Pass::Vjp(wants), Pass::Vjp(&alone), Pass::Forward];
        ops.iter().flatten().flat_map(|op| passes.map(|p| op.scratch(device, ins, p))).max().unwrap_or(0)
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        self.op.cost(ins, pass)
    }
}
