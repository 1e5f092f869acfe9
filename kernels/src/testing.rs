//! Tests an op outside a graph, in memory full of garbage, against a second implementation of its formula.

use crate::case::{Case, Sizes};
use engine::op::infer;
use engine::rng::Stream;
use engine::simd::{Level, Real, for_each_level, supported};
use engine::{Buffer, DType, Device, Eager, Op, Spec, Update, Want};
use std::borrow::Borrow;

/// Small odd sizes: ones wherever possible, widths below, at and above sixteen lanes.
pub fn sizes() -> [Sizes; 3] {
    let s = Sizes { batch: 2, tokens: 5, heads: 3, head_dim: 6, window: 2, latents: 3, ffn: 7, vocab: 11 };
    [
        s,
        Sizes { batch: 1, tokens: 1, heads: 1, head_dim: 2, window: 1, latents: 1, ffn: 1, vocab: 2 },
        Sizes { batch: 3, tokens: 4, heads: 2, head_dim: 8, window: 4, latents: 2, ffn: 33, vocab: 5 },
    ]
}

/// The contents of buffers.
pub fn bytes(buffers: &[Buffer]) -> Vec<&[u8]> {
    buffers.iter().map(|b| if b.is_empty() { &[] } else { b.as_bytes() }).collect()
}

/// Checks that `run` gives the same bits on every instruction set and for several numbers of threads. Returns its
/// result.
pub fn same_bits(what: &str, run: impl Fn() -> Vec<Buffer> + Sync) -> Vec<Buffer> {
    let reference = run();
    for_each_level(|level| {
        for &threads in thread_counts(level) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            let again = pool.install(&run);
            assert!(bytes(&again) == bytes(&reference), "{what}: {level}, {threads} threads");
        }
    });
    reference
}

/// Numbers of threads to test at this level: several at the fastest, one at the others, which take long.
pub fn thread_counts(level: Level) -> &'static [usize] {
    if supported().last() == Some(&level) { &[1, 2, 3, 7] } else { &[3] }
}

/// Standard normal numbers of f32 precision.
pub fn normal(dtype: DType, dims: &[usize], site: u32) -> Buffer {
    let mut x = vec![0.0; dims.iter().product()];
    Stream::new(8, site).fill_normal(0, &mut x, |x| f64::from(x as f32));
    Buffer::from_f64(dtype, dims, &x)
}

/// Standard normal numbers.
pub fn random<T: Real>(len: usize, site: u32) -> Vec<T> {
    (0..len as u32).map(|i| T::from_f64(Stream::new(4, site).normal(i))).collect()
}

/// The largest difference between `a` and `b` in units of the larger of 1 and the largest |b|.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "number of elements");
    let scale = b.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    // A NaN must not get lost in a maximum.
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale).fold(0.0, |m, d| if d <= m { m } else { d })
}

fn eager(op: &dyn Op) -> Eager<'_> {
    Eager { device: &Device::CPU, op }
}

/// The op's outputs.
pub fn forward(op: &dyn Op, ins: &[impl Borrow<Buffer>]) -> Vec<Buffer> {
    eager(op).forward(ins)
}

/// The gradients of the wanted inputs, computed only from the buffers that [`Op::reads`] lists; `Add` starts from ones.
pub fn vjp(op: &dyn Op, wants: &[Want], ins: &[impl Borrow<Buffer>], outs: &[Buffer], d_out: &Buffer) -> Vec<Buffer> {
    eager(op).vjp(wants, ins, outs, d_out, &ones(ins))
}

/// Outputs and gradients of the fused pass; `Add` starts from ones.
pub fn forward_vjp(op: &dyn Op, wants: &[Want], ins: &[impl Borrow<Buffer>]) -> (Vec<Buffer>, Vec<Buffer>) {
    eager(op).forward_vjp(wants, ins, &ones(ins))
}

/// Ones, to which gradients are added.
pub fn ones(like: &[impl Borrow<Buffer>]) -> Vec<Buffer> {
    let ones = |b: &Buffer| Buffer::from_f64(b.dtype(), b.shape().dims(), &vec![1.0; b.len()]);
    like.iter().map(|b| ones(b.borrow())).collect()
}

/// Applies an update to `state`.
pub fn apply(update: &dyn Update, ins: &[&Buffer], state: &mut [Buffer]) {
    engine::eager::apply(&Device::CPU, update, ins, state).expect("enough memory on the CPU");
}

/// Checks that the op refuses inputs such as `f32[2, 3] i32[]` with this message.
#[track_caller]
pub fn refuses(op: &dyn Op, ins: &str, message: &str) {
    let spec = |text: &str| {
        let (dtype, dims) = text.trim().split_once('[').expect("a type and sizes");
        let dtype = [DType::F32, DType::F64, DType::I32].into_iter().find(|known| known.to_string() == dtype);
        let dims: Vec<usize> = dims.split(", ").filter_map(|size| size.parse().ok()).collect();
        Spec::new(dtype.expect("an element type"), &dims)
    };
    let specs: Vec<Spec> = ins.split_terminator(']').map(spec).collect();
    assert_eq!(infer(op, &specs).expect_err(ins).to_string(), message);
}

/// Checks all `cases` of an op at small sizes and at `larger` ones. The formula gets the sizes, the number of the case,
/// and its inputs.
#[track_caller]
pub fn check_all(
    cases: fn(&Sizes) -> Vec<Case>,
    larger: &[Sizes],
    formula: impl Fn(&Sizes, usize, &[Vec<f64>]) -> Vec<f64>,
) {
    for s in sizes().iter().chain(larger) {
        cases(s).iter().enumerate().for_each(|(number, case)| check(case, |ins| formula(s, number, ins)));
    }
}

/// Checks the op of `case` in f64 against `formula`, which maps flat inputs to a flat result: first the result, then
/// the gradient of each input along one direction, by a central difference of the formula. Then checks f32 against f64.
#[track_caller]
pub fn check(case: &Case, formula: impl Fn(&[Vec<f64>]) -> Vec<f64>) {
    let (op, name) = (&*case.op, format!("{} ({})", case.op.name(), case.label));
    let [ins, singles] = [DType::F64, DType::F32].map(|dtype| case.buffers(dtype, 11));
    let values: Vec<_> = ins.iter().map(Buffer::to_f64).collect();
    let outs = forward(op, &ins);
    let error = distance(&outs[0].to_f64(), &formula(&values));
    assert!(error < 1e-13, "{name}: the result has an error of {error:e}");

    let differentiable = |&i: &usize| op.differentiable(i);
    let wants: Vec<_> = (0..ins.len()).map(|i| if op.differentiable(i) { Want::Write } else { Want::Skip }).collect();
    let d_out = normal(DType::F64, outs[0].shape().dims(), 99);
    let d_ins = vjp(op, &wants, &ins, &outs, &d_out);
    for i in (0..ins.len()).filter(differentiable) {
        let direction = normal(DType::F64, ins[i].shape().dims(), 98).to_f64();
        let at = |step: f64| {
            let mut moved = values.clone();
            moved[i].iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d);
            formula(&moved).iter().zip(d_out.as_slice::<f64>()).map(|(y, d)| y * d).sum::<f64>()
        };
        let h = 1e-4;
        let expected = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        let got: f64 = d_ins[i].to_f64().iter().zip(&direction).map(|(d, x)| d * x).sum();
        let error = (got - expected).abs() / expected.abs().max(1.0);
        assert!(error < 1e-7, "{name}: the gradient of {} has an error of {error:e}", op.arguments()[i]);
    }

    let single_outs = forward(op, &singles);
    let single_d_out = Buffer::from_f64(single_outs[0].dtype(), d_out.shape().dims(), &d_out.to_f64());
    let single_d_ins = vjp(op, &wants, &singles, &single_outs, &single_d_out);
    let all = single_outs.iter().chain(&single_d_ins).zip(outs.iter().chain(&d_ins));
    for (single, double) in all.filter(|(single, _)| !single.is_empty()) {
        let error = distance(&single.to_f64(), &double.to_f64());
        assert!(error < 2e-5, "{name}: f32 has an error of {error:e}");
    }
}
