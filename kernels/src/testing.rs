//! The trial that the rooms' own tests put a case through, given the op's formula written down a second time.

use crate::case::{Case, Sizes};
use engine::rng::Stream;
use engine::simd::for_each_level;
use engine::{Buffer, Context, DType, Device, Op, Pass, Spec, Want};

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

/// Memory with `bytes` bytes, all of them NaN in every float type, so that what nobody wrote is found out.
pub fn garbage(bytes: usize) -> Buffer {
    let mut buffer = Buffer::with_capacity(bytes.next_multiple_of(8));
    buffer.respec(Spec::new(DType::F64, &[bytes.div_ceil(8)]));
    buffer.as_mut_slice::<f64>().fill(f64::from_bits(u64::MAX));
    buffer
}

/// The largest difference between `a` and `b` in units of the larger of 1 and the largest |b|.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "number of elements");
    let scale = b.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    // A NaN anywhere must not vanish in a maximum.
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale).fold(0.0, |m, d| if d <= m { m } else { d })
}

/// The op's outputs.
pub fn forward(op: &dyn Op, ins: &[&Buffer]) -> Vec<Buffer> {
    let specs: Vec<_> = ins.iter().map(|b| b.spec()).collect();
    let outputs = op.infer(&specs).expect("the case's shapes");
    let mut outs: Vec<_> = outputs.iter().map(|o| garbage(o.spec.bytes())).collect();
    outs.iter_mut().zip(&outputs).for_each(|(b, o)| b.respec(o.spec));
    let mut scratch = garbage(op.scratch(&Device::Cpu, &specs, Pass::Forward));
    op.forward(&mut Context { device: &Device::Cpu, scratch: &mut scratch }, ins, &mut outs);
    outs
}

/// The gradients of the wanted inputs, from only what [`Op::reads`] announces; `Add` starts from ones.
pub fn vjp(op: &dyn Op, wants: &[Want], ins: &[&Buffer], outs: &[Buffer], d_out: &Buffer) -> Vec<Buffer> {
    let specs: Vec<_> = ins.iter().map(|b| b.spec()).collect();
    let reads = op.reads(wants);
    let empty = Buffer::default();
    let read = |bits: u16, i: usize| bits >> i & 1 == 1;
    let seen_ins: Vec<_> = ins.iter().enumerate().map(|(i, &b)| if read(reads.ins, i) { b } else { &empty }).collect();
    let seen_outs: Vec<_> =
        outs.iter().enumerate().map(|(i, b)| if read(reads.outs, i) { b } else { &empty }).collect();
    let mut d_ins: Vec<_> = specs
        .iter()
        .zip(wants)
        .map(|(&spec, want)| {
            let mut buffer = garbage(spec.bytes());
            match want {
                Want::Skip => return Buffer::default(),
                Want::Write => buffer.respec(spec),
                Want::Add => {
                    buffer.respec(spec);
                    buffer.set_f64(&vec![1.0; spec.shape.numel()]);
                }
            }
            buffer
        })
        .collect();
    let mut scratch = garbage(op.scratch(&Device::Cpu, &specs, Pass::Vjp(wants)));
    let mut cx = Context { device: &Device::Cpu, scratch: &mut scratch };
    op.vjp(&mut cx, wants, &seen_ins, &seen_outs, d_out, &mut d_ins);
    d_ins
}

/// Every assignment of `Skip`, `Write` and `Add` to the inputs that have a gradient.
fn all_wants(op: &dyn Op, inputs: usize) -> Vec<Vec<Want>> {
    (0..inputs).fold(vec![vec![]], |lists, i| {
        let options: &[Want] = if op.differentiable(i) { &[Want::Skip, Want::Write, Want::Add] } else { &[Want::Skip] };
        lists.iter().flat_map(|list| options.iter().map(|&w| [&list[..], &[w]].concat())).collect()
    })
}

/// Checks the op of `case`: the result against `formula` (flat inputs to flat result), gradients against central
/// differences of `formula` for every assignment of wants, f32 against f64, and the bits on every number of threads and
/// instruction set.
pub fn check(case: &Case, formula: impl Fn(&[Vec<f64>]) -> Vec<f64>) {
    let op = &*case.op;
    let name = format!("{} ({})", op.name(), case.label);
    let buffers = case.buffers(DType::F64, 11);
    let ins: Vec<_> = buffers.iter().collect();
    let values: Vec<_> = ins.iter().map(|b| b.to_f64()).collect();

    let outs = forward(op, &ins);
    let error = distance(&outs[0].to_f64(), &formula(&values));
    assert!(error < 1e-13, "{name}: result off by {error:e}");

    let mut cotangent = vec![0.0; outs[0].len()];
    Stream::new(5, 99).fill_normal(&mut cotangent, |x| f64::from(x as f32));
    let d_out = Buffer::from_f64(DType::F64, outs[0].shape().dims(), &cotangent);
    let project = |values: &[Vec<f64>]| formula(values).iter().zip(&cotangent).map(|(y, d)| y * d).sum::<f64>();
    let expected: Vec<Vec<f64>> = (0..ins.len())
        .map(|i| {
            let slope = |j: usize| {
                let mut moved = values.clone();
                moved[i][j] = values[i][j] + 1e-4;
                let above = project(&moved);
                moved[i][j] = values[i][j] - 1e-4;
                (above - project(&moved)) / 2e-4
            };
            if op.differentiable(i) { (0..values[i].len()).map(slope).collect() } else { vec![] }
        })
        .collect();

    let bits = |buffers: &[Buffer]| -> Vec<Vec<u8>> {
        buffers.iter().map(|b| if b.is_empty() { vec![] } else { b.as_bytes().to_vec() }).collect()
    };
    for wants in all_wants(op, ins.len()) {
        let d_ins = vjp(op, &wants, &ins, &outs, &d_out);
        for (i, want) in wants.iter().enumerate().filter(|(_, want)| want.is_wanted()) {
            let base = if *want == Want::Add { 1.0 } else { 0.0 };
            let expected: Vec<_> = expected[i].iter().map(|x| x + base).collect();
            let error = distance(&d_ins[i].to_f64(), &expected);
            assert!(error < 1e-6, "{name}: gradient of {} off by {error:e} for {wants:?}", op.arguments()[i]);
        }

        let singles = case.buffers(DType::F32, 11);
        let singles: Vec<_> = singles.iter().collect();
        let d_single = Buffer::from_f64(DType::F32, d_out.shape().dims(), &cotangent);
        let run = || {
            let outs = forward(op, &singles);
            let d_ins = vjp(op, &wants, &singles, &outs, &d_single);
            (outs, d_ins)
        };
        let (single_outs, d_singles) = run();
        for (what, (single, double)) in [("outputs", (&single_outs, &outs)), ("gradients", (&d_singles, &d_ins))] {
            for (single, double) in single.iter().zip(double).filter(|(s, _)| !s.is_empty()) {
                let error = distance(&single.to_f64(), &double.to_f64());
                assert!(error < 1e-5, "{name}: f32 {what} off by {error:e} for {wants:?}");
            }
        }
        let reference = (bits(&single_outs), bits(&d_singles));
        for_each_level(|level| {
            for threads in [1, 3] {
                let (outs, d_ins) = with_threads(threads, run);
                assert_eq!((bits(&outs), bits(&d_ins)), reference, "{name}: {level}, {threads} threads, {wants:?}");
            }
        });
    }
}
