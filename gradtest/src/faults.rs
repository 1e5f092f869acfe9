//! Planted faults: wrong gradients that the check must find. A check that never finds anything proves nothing.

use crate::at::not_found;
use crate::point::{Point, drawn, points};
use autograd::gradcheck::Failure;
use engine::case::Case;
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want};
use proptest::strategy::Strategy;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Changes a gradient (the last argument), given the inputs, the outputs and the result's gradient.
pub type Change = fn(&[&Buffer], &[&Buffer], &[f64], &mut [f64]);

/// A mistake in the gradient of one input.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The other sign.
    Sign,
    /// The gradient as a matrix (last dimension by all others), stored in the order of its transpose.
    Transposed,
    /// One element of the result contributes nothing.
    MissingTerm,
    /// Every row is replaced by its neighbour; with one row, every element.
    OffByOne,
    /// Written where it should be added.
    NotAccumulated,
    /// A mean over rows in place of a sum.
    MeanForSum,
    /// Every row is replaced by the first; with one row, every element.
    FirstForAll,
    /// Computed from the residuals of an earlier forward pass; if the op has none, from an earlier pass's inputs.
    Stale,
    /// Its first number is wrong by half if no other gradient is wanted.
    Alone,
    /// It is wrong by a thousandth if it is written while another gradient is added.
    Mixed,
    /// The fused pass is wrong by a millionth.
    Fused,
    /// The op claims wrongly that it passes the result's gradient through.
    PassedThrough,
    /// The op claims to have a gradient, which is zero.
    Invented,
    /// The VJP of another op.
    VjpOf(Arc<dyn Op>),
    /// The VJP sees the inputs changed by this function.
    Sees(fn(&mut [Buffer])),
    /// This function changes the gradient.
    Changes(Change),
}

impl Fault {
    /// The faults that apply to any gradient.
    pub const GENERIC: [Self; 8] = [
        Self::Sign,
        Self::Transposed,
        Self::MissingTerm,
        Self::OffByOne,
        Self::NotAccumulated,
        Self::MeanForSum,
        Self::FirstForAll,
        Self::Stale,
    ];

    /// Plants the fault into the gradient of input number `input` of a case.
    pub fn plant(self, input: usize, case: Case) -> Case {
        self.watched(input, case, Arc::default())
    }

    /// Plants the fault; it sets `struck` when it changes a gradient.
    fn watched(self, input: usize, case: Case, struck: Arc<AtomicBool>) -> Case {
        Case { op: Arc::new(Faulty { op: case.op, input, fault: self, struck }), ..case }
    }
}

/// Plants every fault that applies to any gradient ([`Fault::GENERIC`]) into every differentiable input of an
/// op, and checks that [`gradients`](crate::gradients) would find it. Returns the inputs and faults that changed no
/// gradient at any point.
///
/// # Errors
/// If a fault changed a gradient and was not found; with a regression test at the first point where it did.
pub fn planted_faults(cases: impl Strategy<Value = Case>) -> std::result::Result<Vec<(&'static str, Fault)>, String> {
    let mut harmless = Vec::new();
    let typical = drawn(&cases).next().ok_or("no cases were asked for")?;
    for (i, input) in typical.differentiable() {
        for fault in Fault::GENERIC {
            // The first point at which it changes a gradient.
            let mut changed = None;
            let mut found = false;
            for point in drawn(points(&cases)) {
                let struck = Arc::<AtomicBool>::default();
                let case = fault.clone().watched(i, point.case.clone(), struck.clone());
                let checked = Point { case, draw: point.draw.clone() }.check();
                if changed.is_none() && struck.load(Ordering::Relaxed) {
                    changed = Some(point);
                }
                if let Err(failure) = checked {
                    found = matches!(failure, Failure::Wrong(_));
                    break;
                }
            }
            match changed {
                _ if found => {}
                None => harmless.push((input, fault)),
                Some(point) => {
                    let seed = point.draw.seed;
                    let call = format!("gradtest::at::planted(op, &ins, {seed}, gradtest::Fault::{fault:?}, {i})");
                    let failure = not_found(&fault, input);
                    return Err(format!("{failure}, e.g. in {point}\nto repeat it:\n{}", point.test(&call)));
                }
            }
        }
    }
    Ok(harmless)
}

/// An op with a fault in the gradient of one input. Usually it neither fuses nor passes gradients through, so that
/// central differences must find the fault.
#[derive(Debug)]
struct Faulty {
    op: Arc<dyn Op>,
    input: usize,
    fault: Fault,
    /// Whether a gradient was wrong so far.
    struck: Arc<AtomicBool>,
}

impl Faulty {
    /// Wants for the faulty input alone.
    fn alone(&self, inputs: usize) -> Vec<Want> {
        (0..inputs).map(|i| if i == self.input { Want::Write } else { Want::Skip }).collect()
    }

    /// The result of the faulty VJP for these inputs, outputs and the result's gradient.
    fn wrong(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], outs: &[&Buffer], d_out: &Buffer) -> Vec<f64> {
        let clones = |buffers: &[&Buffer]| buffers.iter().map(|&b| b.clone()).collect::<Vec<_>>();
        let (mut seen_ins, mut seen_outs, mut seen_d_out) = (clones(ins), clones(outs), d_out.clone());
        let mut op = &*self.op;
        match &self.fault {
            Fault::Invented => return vec![0.0; ins[self.input].len()],
            Fault::MissingTerm => *seen_d_out.as_mut_slice::<f64>().last_mut().expect("a result") = 0.0,
            Fault::Sees(change) => change(&mut seen_ins),
            Fault::Stale => {
                seen_ins.iter_mut().for_each(earlier);
                if self.op.reads(&self.alone(ins.len())).outs != 0 {
                    self.op.forward(cx, &refs(&seen_ins), &mut seen_outs);
                    seen_ins = clones(ins);
                }
            }
            Fault::VjpOf(other) => op = &**other,
            _ => {}
        }
        let mut g = self.gradient(op, cx, &refs(&seen_ins), &refs(&seen_outs), &seen_d_out);
        let shape = ins[self.input].shape();
        let (rows, width) = (shape.rows(), shape.last());
        let row = if rows > 1 { width } else { 1 };
        let n = rows.max(d_out.shape().rows()) as f64;
        let old = g.clone();
        match &self.fault {
            Fault::Sign => g.iter_mut().for_each(|x| *x = -*x),
            Fault::Transposed => g.iter_mut().enumerate().for_each(|(k, x)| *x = old[k % rows * width + k / rows]),
            Fault::OffByOne => g.rotate_right(row),
            Fault::MeanForSum => g.iter_mut().for_each(|x| *x /= n),
            Fault::FirstForAll => g.chunks_mut(row).for_each(|to| to.copy_from_slice(&old[..row])),
            Fault::Alone if wants.iter().filter(|want| want.is_wanted()).count() == 1 => g[0] *= 1.5,
            Fault::Mixed if wants[self.input] == Want::Write && wants.contains(&Want::Add) => {
                g.iter_mut().for_each(|x| *x += 1e-3);
            }
            Fault::Changes(change) => change(ins, outs, d_out.as_slice(), &mut g),
            _ => {}
        }
        g
    }

    /// The correct gradient of the faulty input.
    fn gradient(&self, op: &dyn Op, cx: &mut Context, ins: &[&Buffer], outs: &[&Buffer], d_out: &Buffer) -> Vec<f64> {
        let mut d_ins: Vec<Buffer> = ins.iter().map(|_| Buffer::empty()).collect();
        d_ins[self.input] = Buffer::new(ins[self.input].spec());
        op.vjp(cx, &self.alone(ins.len()), ins, outs, d_out, &mut d_ins);
        d_ins[self.input].to_f64()
    }
}

fn refs(buffers: &[Buffer]) -> Vec<&Buffer> {
    buffers.iter().collect()
}

/// The input as it may have been one step earlier.
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
        self.op.differentiable(i) || matches!(self.fault, Fault::Invented) && i == self.input
    }

    fn domain(&self, i: usize) -> Range<f64> {
        self.op.domain(i)
    }

    fn reads(&self, _: &[Want]) -> Reads {
        Reads { ins: u16::MAX, outs: u16::MAX }
    }

    fn passes_through(&self, i: usize) -> bool {
        matches!(self.fault, Fault::PassedThrough) && i == self.input
    }

    fn fuses(&self) -> bool {
        matches!(self.fault, Fault::Fused) && self.op.fuses()
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        self.op.forward(cx, ins, outs);
    }

    fn forward_vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        outs: &mut [Buffer],
        d_ins: &mut [Buffer],
    ) {
        self.op.forward_vjp(cx, wants, ins, outs, d_ins);
        if wants[self.input].is_wanted() {
            d_ins[self.input].as_mut_slice::<f64>()[0] *= 1.0 + 1e-6;
        }
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
        let wrong = self.wrong(cx, wants, ins, outs, d_out);
        let right = match self.fault {
            Fault::Invented => Vec::new(),
            _ => self.gradient(&*self.op, cx, ins, outs, d_out),
        };
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
        // Each gradient is also computed alone, and the forward pass runs once more.
        let alone = self.alone(wants.len());
        let passes = [pass, Pass::Vjp(wants), Pass::Vjp(&alone), Pass::Forward];
        let other = if let Fault::VjpOf(other) = &self.fault { Some(&**other) } else { None };
        let ops = std::iter::once(&*self.op).chain(other);
        ops.flat_map(|op| passes.map(|p| op.scratch(device, ins, p))).max().unwrap_or(0)
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        self.op.cost(ins, pass)
    }
}
