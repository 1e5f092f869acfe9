//! How tests try an op: outside a graph, in memory full of garbage, against a second implementation of its formula.

use crate::case::{Case, Sizes};
use engine::rng::Stream;
use engine::simd::for_each_level;
use engine::{Buffer, Context, DType, Device, Op, Pass, Spec, Update, Want};
use std::borrow::Borrow;

/// Small odd sizes: ones everywhere they may be, widths below, at and above sixteen lanes.
pub fn sizes() -> [Sizes; 3] {
    let s = Sizes { batch: 2, tokens: 5, heads: 3, head_dim: 6, window: 2, latents: 3, ffn: 7, vocab: 11 };
    [
        s,
        Sizes { batch: 1, tokens: 1, heads: 1, head_dim: 2, window: 1, latents: 1, ffn: 1, vocab: 2 },
        Sizes { batch: 3, tokens: 4, heads: 2, head_dim: 8, window: 4, latents: 2, ffn: 33, vocab: 5 },
    ]
}

/// Runs `f` on a pool of `n` threads.
pub fn with_threads<R: Send>(n: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a thread pool").install(f)
}

/// The contents of buffers.
pub fn bytes(buffers: &[Buffer]) -> Vec<&[u8]> {
    buffers.iter().map(|b| if b.is_empty() { &[] } else { b.as_bytes() }).collect()
}

/// `run` gives the same bits on every instruction set and on several numbers of threads. Returns what it gives.
pub fn same_bits(what: &str, run: impl Fn() -> Vec<Buffer> + Sync) -> Vec<Buffer> {
    let reference = run();
    for_each_level(|level| {
        for threads in [1, 2, 3] {
            let again = with_threads(threads, &run);
            assert!(bytes(&again) == bytes(&reference), "{what}: {level}, {threads} threads");
        }
    });
    reference
}

/// A buffer of NaN, which shows what nobody wrote.
pub fn garbage(spec: Spec) -> Buffer {
    let mut buffer = scratch(spec.bytes());
    buffer.respec(spec);
    buffer
}

/// Memory with `bytes` bytes, all of them NaN in every float type.
fn scratch(bytes: usize) -> Buffer {
    let mut buffer = Buffer::with_capacity(bytes.next_multiple_of(8));
    buffer.respec(Spec::new(DType::F64, &[bytes.div_ceil(8)]));
    buffer.as_mut_slice::<f64>().fill(f64::from_bits(u64::MAX));
    buffer
}

/// Standard normal numbers of f32 precision.
pub fn normal(dtype: DType, dims: &[usize], site: u32) -> Buffer {
    let mut x = vec![0.0; dims.iter().product()];
    Stream::new(8, site).fill_normal(&mut x, |x| f64::from(x as f32));
    Buffer::from_f64(dtype, dims, &x)
}

/// The largest difference between `a` and `b` in units of the larger of 1 and the largest |b|.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "number of elements");
    let scale = b.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    // A NaN anywhere must not vanish in a maximum.
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale).fold(0.0, |m, d| if d <= m { m } else { d })
}

fn specs(buffers: &[&Buffer]) -> Vec<Spec> {
    buffers.iter().map(|b| b.spec()).collect()
}

fn lent(buffers: &[impl Borrow<Buffer>]) -> Vec<&Buffer> {
    buffers.iter().map(Borrow::borrow).collect()
}

/// Buffers for the op's outputs.
fn outputs(op: &dyn Op, ins: &[&Buffer]) -> Vec<Buffer> {
    op.infer(&specs(ins)).expect("inputs of the op").iter().map(|out| garbage(out.spec)).collect()
}

/// Buffers for gradients; `Add` starts from ones.
fn gradients(wants: &[Want], ins: &[&Buffer]) -> Vec<Buffer> {
    let gradient = |(want, of): (&Want, &&Buffer)| match want {
        Want::Skip => Buffer::default(),
        Want::Write => garbage(of.spec()),
        Want::Add => Buffer::from_f64(of.dtype(), of.shape().dims(), &vec![1.0; of.len()]),
    };
    wants.iter().zip(ins).map(gradient).collect()
}

/// The op's outputs.
pub fn forward(op: &dyn Op, ins: &[impl Borrow<Buffer>]) -> Vec<Buffer> {
    let ins = lent(ins);
    let mut outs = outputs(op, &ins);
    let mut scratch = scratch(op.scratch(&Device::Cpu, &specs(&ins), Pass::Forward));
    op.forward(&mut Context { device: &Device::Cpu, scratch: &mut scratch }, &ins, &mut outs);
    outs
}

/// The gradients of the wanted inputs, from only what [`Op::reads`] announces; `Add` starts from ones.
pub fn vjp(op: &dyn Op, wants: &[Want], ins: &[impl Borrow<Buffer>], outs: &[Buffer], d_out: &Buffer) -> Vec<Buffer> {
    let ins = lent(ins);
    let (reads, empty) = (op.reads(wants), Buffer::default());
    let read = |bits: u16, i: usize| bits >> i & 1 == 1;
    let seen_ins: Vec<_> = ins.iter().enumerate().map(|(i, &b)| if read(reads.ins, i) { b } else { &empty }).collect();
    let seen_outs: Vec<_> =
        outs.iter().enumerate().map(|(i, b)| if read(reads.outs, i) { b } else { &empty }).collect();
    let mut d_ins = gradients(wants, &ins);
    let mut scratch = scratch(op.scratch(&Device::Cpu, &specs(&ins), Pass::Vjp(wants)));
    let mut cx = Context { device: &Device::Cpu, scratch: &mut scratch };
    op.vjp(&mut cx, wants, &seen_ins, &seen_outs, d_out, &mut d_ins);
    d_ins
}

/// Outputs and gradients of the fused pass.
pub fn forward_vjp(op: &dyn Op, wants: &[Want], ins: &[impl Borrow<Buffer>]) -> (Vec<Buffer>, Vec<Buffer>) {
    let ins = lent(ins);
    let (mut outs, mut d_ins) = (outputs(op, &ins), gradients(wants, &ins));
    let mut scratch = scratch(op.scratch(&Device::Cpu, &specs(&ins), Pass::Fused(wants)));
    let mut cx = Context { device: &Device::Cpu, scratch: &mut scratch };
    op.forward_vjp(&mut cx, wants, &ins, &mut outs, &mut d_ins);
    (outs, d_ins)
}

/// Applies an update to `state`.
pub fn apply(update: &dyn Update, ins: &[&Buffer], state: &mut [Buffer]) {
    let mut scratch = scratch(update.scratch(&Device::Cpu, &specs(ins), &specs(&lent(state))));
    update.apply(&mut Context { device: &Device::Cpu, scratch: &mut scratch }, ins, state);
}

/// The op refuses inputs such as `f32[2, 3] i32[]` with this message.
#[track_caller]
pub fn refuses(op: &dyn Op, ins: &str, message: &str) {
    let spec = |text: &str| {
        let (dtype, dims) = text.trim().split_once('[').expect("a type and sizes");
        let dtype = [DType::F32, DType::F64, DType::I32].into_iter().find(|known| known.to_string() == dtype);
        let dims: Vec<usize> = dims.split(", ").filter_map(|size| size.parse().ok()).collect();
        Spec::new(dtype.expect("an element type"), &dims)
    };
    let specs: Vec<Spec> = ins.split_terminator(']').map(spec).collect();
    assert_eq!(op.infer(&specs).expect_err(ins).to_string(), message);
}

/// Every assignment of wants to the inputs that have a gradient, except none for all.
fn all_wants(op: &dyn Op, inputs: usize) -> Vec<Vec<Want>> {
    let mut all = (0..inputs).fold(vec![vec![]], |lists, i| {
        let options: &[Want] = if op.differentiable(i) { &[Want::Skip, Want::Write, Want::Add] } else { &[Want::Skip] };
        lists.iter().flat_map(|list| options.iter().map(|&w| [&list[..], &[w]].concat())).collect()
    });
    all.retain(|wants: &Vec<Want>| wants.iter().any(|want| want.is_wanted()));
    all
}

/// The op of `case` at f64 numbers, and its formula: flat inputs to flat result.
struct Trial<'a, F> {
    case: &'a Case,
    formula: F,
    ins: Vec<Buffer>,
    values: Vec<Vec<f64>>,
    outs: Vec<Buffer>,
    d_out: Buffer,
}

impl<'a, F: Fn(&[Vec<f64>]) -> Vec<f64> + Sync> Trial<'a, F> {
    /// Checks the result against the formula.
    #[track_caller]
    fn new(case: &'a Case, formula: F) -> Self {
        let ins = case.buffers(DType::F64, 11);
        let values: Vec<_> = ins.iter().map(Buffer::to_f64).collect();
        let outs = forward(&*case.op, &ins);
        let error = distance(&outs[0].to_f64(), &formula(&values));
        assert!(error < 1e-13, "{} ({}): result off by {error:e}", case.op.name(), case.label);
        let d_out = normal(DType::F64, outs[0].shape().dims(), 99);
        Self { case, formula, ins, values, outs, d_out }
    }

    fn name(&self) -> String {
        format!("{} ({})", self.case.op.name(), self.case.label)
    }

    /// The slope of the formula's result, times `d_out`, where input `i` moves along `direction`: a central difference.
    fn slope(&self, i: usize, direction: impl Fn(usize) -> f64) -> f64 {
        let at = |step: f64| {
            let mut values = self.values.clone();
            values[i].iter_mut().enumerate().for_each(|(j, x)| *x += step * direction(j));
            let result = (self.formula)(&values);
            result.iter().zip(self.d_out.as_slice::<f64>()).map(|(y, d)| y * d).sum::<f64>()
        };
        let h = 1e-4;
        (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
    }

    /// Outputs and gradients in f32.
    fn single(&self, wants: &[Want]) -> Vec<Buffer> {
        let ins = self.case.buffers(DType::F32, 11);
        let outs = forward(&*self.case.op, &ins);
        let d_out = Buffer::from_f64(outs[0].dtype(), outs[0].shape().dims(), &self.d_out.to_f64());
        let d_ins = vjp(&*self.case.op, wants, &ins, &outs, &d_out);
        [outs, d_ins].concat()
    }

    #[track_caller]
    fn assert_f32(&self, single: &[Buffer], d_ins: &[Buffer], tolerance: f64) {
        for (single, double) in single.iter().zip(self.outs.iter().chain(d_ins)).filter(|(s, _)| !s.is_empty()) {
            let error = distance(&single.to_f64(), &double.to_f64());
            assert!(error < tolerance, "{}: f32 off by {error:e}", self.name());
        }
    }

    fn differentiable(&self) -> impl Iterator<Item = usize> {
        (0..self.ins.len()).filter(|&i| self.case.op.differentiable(i))
    }
}

/// Checks the op of `case`: its result against `formula` (flat inputs to flat result), its gradients against central differences
/// of `formula` for every assignment of wants, f32 against f64, and the bits on every instruction set and number of threads.
#[track_caller]
pub fn check(case: &Case, formula: impl Fn(&[Vec<f64>]) -> Vec<f64> + Sync) {
    let trial = Trial::new(case, formula);
    let (op, name) = (&*case.op, trial.name());
    let mut expected = vec![vec![]; trial.ins.len()];
    for i in trial.differentiable() {
        let slope = |j: usize| trial.slope(i, |at| f64::from(u8::from(at == j)));
        expected[i] = (0..trial.values[i].len()).map(slope).collect();
    }
    for wants in all_wants(op, trial.ins.len()) {
        let d_ins = vjp(op, &wants, &trial.ins, &trial.outs, &trial.d_out);
        for (i, want) in wants.iter().enumerate().filter(|(_, want)| want.is_wanted()) {
            let base = if *want == Want::Add { 1.0 } else { 0.0 };
            let expected: Vec<_> = expected[i].iter().map(|x| x + base).collect();
            let error = distance(&d_ins[i].to_f64(), &expected);
            assert!(error < 1e-6, "{name}: gradient of {} off by {error:e} for {wants:?}", op.arguments()[i]);
        }
        let single = same_bits(&format!("{name}, {wants:?}"), || trial.single(&wants));
        trial.assert_f32(&single, &d_ins, 1e-5);
    }
}

/// The same for a large case: it checks gradients along one direction, and no bits.
#[track_caller]
pub fn check_large(case: &Case, formula: impl Fn(&[Vec<f64>]) -> Vec<f64> + Sync) {
    let trial = Trial::new(case, formula);
    let (op, name) = (&*case.op, trial.name());
    let wants: Vec<_> =
        (0..trial.ins.len()).map(|i| if op.differentiable(i) { Want::Write } else { Want::Skip }).collect();
    let d_ins = vjp(op, &wants, &trial.ins, &trial.outs, &trial.d_out);
    for i in trial.differentiable() {
        let direction = normal(DType::F64, trial.ins[i].shape().dims(), 98).to_f64();
        let expected = trial.slope(i, |j| direction[j]);
        let got: f64 = d_ins[i].to_f64().iter().zip(&direction).map(|(d, x)| d * x).sum();
        let error = (got - expected).abs() / expected.abs().max(1.0);
        assert!(error < 1e-7, "{name}: gradient of {} off by {error:e}", op.arguments()[i]);
    }
    trial.assert_f32(&trial.single(&wants), &d_ins, 1e-4);
}
