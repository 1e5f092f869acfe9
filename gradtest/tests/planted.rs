//! Mutation proof: wrong gradients planted into every input of every op of the registry, each of which must be found.

use autograd::gradcheck::{Failure, Options, check_op};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want};
use gradtest::Cases;
use gradtest::faults::{Fault, GENERIC, Outcome, Planted};
use kernels::case::{Case, Fill, Input, Sizes};
use kernels::cast::Cast;
use kernels::registry::ROOMS;
use kernels::rope::Rope;
use kernels::slice::Slice;
use kernels::window_attention::WindowAttention;
use std::sync::Arc;

/// The registry, and the cast, which has no room there: of f64 it is the identity, whose gradient can be checked.
fn rooms() -> Vec<(&'static str, Cases)> {
    let cast: Cases = |s| {
        let x = Input::new(&[s.batch, s.tokens], Fill::NORMAL);
        vec![Case::new("to its own type", Cast { to: DType::F64 }, vec![x])]
    };
    ROOMS.iter().map(|room| (room.name, room.cases)).chain([("cast", cast)]).collect()
}

/// Where cases are listed.
const SIZES: Sizes = Sizes { batch: 2, tokens: 3, heads: 2, head_dim: 2, window: 2, latents: 2, ffn: 2, vocab: 3 };

/// The mistakes that only these ops invite.
const SPECIFIC: &[Fault] = &[
    Fault::VjpOf { op: "window_attention", name: "window one too wide", other: |s| window(s.heads, s.window + 1) },
    Fault::VjpOf {
        op: "window_attention",
        name: "window one too narrow",
        other: |s| window(s.heads, (s.window - 1).max(1)),
    },
    Fault::VjpOf { op: "window_attention", name: "one head", other: |s| window(1, s.window) },
    Fault::VjpOf {
        op: "cross_attention",
        name: "one head",
        other: |_| Arc::new(kernels::cross_attention::CrossAttention { heads: 1 }),
    },
    Fault::VjpOf { op: "slice", name: "one row late", other: |s| Arc::new(Slice { start: 1, len: s.latents }) },
    Fault::VjpOf {
        op: "rope",
        name: "one head too many rotated",
        other: |s| Arc::new(Rope { heads: 3 * s.heads, rotated: 2 * s.heads + 1 }),
    },
    Fault::Sees {
        op: "rope",
        name: "rotated forth",
        change: |ins| map(&mut ins[1], |i, x| if i % 2 == 1 { -x } else { x }),
    },
    Fault::Sees {
        op: "lm_head",
        name: "the neighbour's target",
        change: |ins| ins[2].as_mut_slice::<i32>().rotate_right(1),
    },
    Fault::Sees { op: "lm_head", name: "without the scale", change: |ins| ins[3].set_f64(&[1.0]) },
    Fault::Sees {
        op: "linear_residual",
        name: "bf16 weights",
        change: |ins| map(&mut ins[1], |_, x| (x * 256.0).round() / 256.0),
    },
    Fault::Changes {
        op: "embedding",
        name: "a repeated token counts once",
        input: 0,
        change: |ins, _, d_y, g| {
            let width = ins[0].shape().last();
            for (&token, row) in ins[1].as_slice::<i32>().iter().zip(d_y.chunks(width)) {
                g[token as usize * width..][..width].copy_from_slice(row);
            }
        },
    },
    Fault::Changes {
        op: "rmsnorm",
        name: "without the mean's gradient",
        input: 0,
        change: |ins, outs, d_y, g| scaled(ins[1], outs[1], d_y, g),
    },
    Fault::Changes {
        op: "layernorm",
        name: "without the statistics' gradients",
        input: 0,
        change: |ins, outs, d_y, g| scaled(ins[1], outs[2], d_y, g),
    },
    Fault::Changes {
        op: "gelu",
        name: "without the slope of the sigmoid",
        input: 0,
        change: |ins, _, d_y, g| {
            for ((g, d_y), u) in g.iter_mut().zip(d_y).zip(ins[0].to_f64()) {
                let a = (8.0 / std::f64::consts::PI).sqrt() * (u + 0.044715 * u * u * u);
                *g = d_y / (1.0 + (-a).exp());
            }
        },
    },
    Fault::Changes {
        op: "bias",
        name: "of the last row alone",
        input: 1,
        change: |_, _, d_y, g| g.copy_from_slice(&d_y[d_y.len() - g.len()..]),
    },
    Fault::Changes {
        op: "swiglu",
        name: "halves swapped",
        input: 0,
        change: |ins, _, _, g| {
            let width = ins[0].shape().last();
            g.chunks_mut(width).for_each(|row| row.rotate_left(width / 2));
        },
    },
    Fault::Changes {
        op: "swiglu",
        name: "the gate's slope without its second term",
        input: 0,
        change: |ins, _, d_y, g| {
            let (u, f) = (ins[0].to_f64(), ins[0].shape().last() / 2);
            for (i, d_y) in d_y.iter().enumerate() {
                let at = i / f * 2 * f + i % f;
                g[at] = d_y * u[at + f] / (1.0 + (-u[at]).exp());
            }
        },
    },
    Fault::Changes {
        op: "gaussian_kl",
        name: "without the entropy",
        input: 1,
        change: |ins, _, d_kl, g| {
            let (logvar, each) = (ins[1].to_f64(), g.len() / d_kl.len());
            for (i, g) in g.iter_mut().enumerate() {
                *g = 0.5 * d_kl[i / each] * logvar[i].exp();
            }
        },
    },
    Fault::Changes {
        op: "reparameterize",
        name: "of sigma, not of its logarithm's double",
        input: 1,
        change: |_, _, _, g| g.iter_mut().for_each(|g| *g *= 2.0),
    },
    Fault::Changes {
        op: "sum",
        name: "of all but the last",
        input: 0,
        change: |_, _, _, g| *g.last_mut().unwrap() = 0.0,
    },
    Fault::Changes {
        op: "add",
        name: "half to each",
        input: 1,
        change: |_, _, _, g| g.iter_mut().for_each(|g| *g *= 0.5),
    },
    Fault::Changes {
        op: "cast",
        name: "rounded to bf16 on the way back",
        input: 0,
        change: |_, _, _, g| {
            let rounded = Buffer::from_f64(DType::Bf16, &[g.len()], g).to_f64();
            g.copy_from_slice(&rounded);
        },
    },
    Fault::Changes {
        op: "linear",
        name: "one row of weights",
        input: 1,
        change: |ins, _, _, g| g[..ins[1].shape().last()].fill(0.0),
    },
];

fn window(heads: usize, window: usize) -> Arc<dyn Op> {
    Arc::new(WindowAttention { heads, window })
}

/// g = rstd · gain ⊙ d_y, row by row.
fn scaled(gain: &Buffer, rstd: &Buffer, d_y: &[f64], g: &mut [f64]) {
    let (gain, rstd) = (gain.to_f64(), rstd.to_f64());
    for (i, g) in g.iter_mut().enumerate() {
        *g = rstd[i / gain.len()] * gain[i % gain.len()] * d_y[i];
    }
}

fn map(buffer: &mut Buffer, f: impl Fn(usize, f64) -> f64) {
    let values: Vec<f64> = buffer.to_f64().into_iter().enumerate().map(|(i, x)| f(i, x)).collect();
    buffer.set_f64(&values);
}

/// What changes nothing, for a reason that the mathematics knows.
const HARMLESS: &[(&str, &str, &str)] = &[
    // Nothing is read, so nothing can be stale.
    ("add", "a", "stale"),
    ("add", "b", "stale"),
    ("bias", "x", "stale"),
    ("bias", "b", "stale"),
    ("cast", "x", "stale"),
    ("layernorm", "bias", "stale"),
    ("linear_residual", "residual", "stale"),
    ("reparameterize", "mu", "stale"),
    ("slice", "x", "stale"),
    ("sum", "x", "stale"),
    // A vector is its own transpose.
    ("bias", "b", "transposed"),
    ("rmsnorm", "gain", "transposed"),
    ("layernorm", "gain", "transposed"),
    ("layernorm", "bias", "transposed"),
    // All numbers of this gradient are equal.
    ("sum", "x", "transposed"),
    ("sum", "x", "off by one"),
    ("sum", "x", "first for all"),
];

#[test]
fn every_planted_fault_is_found() {
    let (mut caught, mut harmless) = (0, Vec::new());
    for (room, cases) in rooms() {
        let planted = gradtest::planted_faults(cases, SPECIFIC).unwrap_or_else(|e| panic!("{room}: {e}"));
        for case in cases(&SIZES) {
            let op = case.op.name();
            let differentiable: Vec<usize> = (0..case.ins.len()).filter(|&i| case.op.differentiable(i)).collect();
            for &i in &differentiable {
                let input = case.op.arguments()[i];
                let tried = planted.iter().filter(|p| (p.op, p.input) == (op, input));
                assert!(tried.count() >= GENERIC.len(), "{op} {input} has no planted faults");
            }
            let own = SPECIFIC.iter().filter(|fault| fault.op() == Some(op));
            assert!(differentiable.is_empty() || own.count() > 0, "{op} has no planted faults of its own");
        }
        caught += planted.iter().filter(|p| p.outcome == Outcome::Caught).count();
        harmless.extend(planted.into_iter().filter(|p| p.outcome == Outcome::Harmless));
    }
    // A fault of one op must be found in one of its inputs; the others it may leave alone.
    for fault in SPECIFIC {
        let missed: Vec<&Planted> =
            harmless.iter().filter(|p| p.fault == fault.name() && fault.op() == Some(p.op)).collect();
        let case =
            rooms().into_iter().flat_map(|(_, cases)| cases(&SIZES)).find(|case| fault.op() == Some(case.op.name()));
        let case = case.unwrap_or_else(|| panic!("no op {:?} for \"{}\"", fault.op(), fault.name()));
        let inputs = (0..case.ins.len()).filter(|&i| case.op.differentiable(i)).count();
        assert!(missed.len() < inputs, "\"{}\" changed no gradient of {}", fault.name(), case.op.name());
    }
    let generic = |p: &&Planted| GENERIC.iter().any(|fault| fault.name() == p.fault);
    let mut found: Vec<_> = harmless.iter().filter(generic).map(|p| (p.op, p.input, p.fault)).collect();
    let mut expected = HARMLESS.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "faults that changed no gradient");
    println!("{caught} planted faults found, {} changed nothing", harmless.len());
}

/// What an op may get wrong beyond its gradient itself.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// It says that it passes the result's gradient on to its first input.
    PassesThrough,
    /// The fused pass is off by a millionth.
    Fused,
    /// A gradient wanted alone is another.
    Alone,
    /// Where one gradient is added, the others are added too.
    Mixed,
    /// This input, which has no gradient, has one: zero.
    Differentiable(usize),
}

#[derive(Debug)]
struct Liar {
    op: Box<dyn Op>,
    lie: Lie,
}

impl Op for Liar {
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
        self.op.differentiable(i) || matches!(self.lie, Lie::Differentiable(j) if i == j)
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        self.op.reads(wants)
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
        d: &mut [Buffer],
    ) {
        let mut wants = wants.to_vec();
        if let Lie::Differentiable(i) = self.lie {
            if std::mem::replace(&mut wants[i], Want::Skip) == Want::Write {
                d[i].as_mut_slice::<f64>().fill(0.0);
            }
            if !wants.iter().any(|want| want.is_wanted()) {
                return;
            }
        }
        if matches!(self.lie, Lie::Mixed) && wants.contains(&Want::Add) {
            for (want, d) in wants.iter_mut().zip(&mut *d).filter(|(want, _)| **want == Want::Write) {
                *want = Want::Add;
                d.as_mut_slice::<f64>().fill(1e-3);
            }
        }
        self.op.vjp(cx, &wants, ins, outs, d_out, d);
        if matches!(self.lie, Lie::Alone) && wants.iter().filter(|want| want.is_wanted()).count() == 1 {
            d.iter_mut().filter(|d| !d.is_empty()).for_each(|d| d.as_mut_slice::<f64>()[0] *= 1.5);
        }
    }

    fn fuses(&self) -> bool {
        self.op.fuses()
    }

    fn forward_vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], outs: &mut [Buffer], d: &mut [Buffer]) {
        self.op.forward_vjp(cx, wants, ins, outs, d);
        if matches!(self.lie, Lie::Fused) {
            d.iter_mut().filter(|d| !d.is_empty()).for_each(|d| d.as_mut_slice::<f64>()[0] *= 1.0 + 1e-6);
        }
    }

    fn passes_through(&self, i: usize) -> bool {
        self.op.passes_through(i) || matches!(self.lie, Lie::PassesThrough) && i == 0
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        self.op.scratch(device, ins, pass)
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        self.op.cost(ins, pass)
    }
}

#[test]
fn what_an_op_gets_wrong_around_its_gradient_is_found() {
    let lies: [(Lie, Cases, &str); 4] = [
        (Lie::PassesThrough, kernels::rmsnorm::cases, "which the op says it passes through"),
        (Lie::Fused, kernels::cross_entropy::cases, "forward and backward one after the other"),
        (Lie::Alone, kernels::matmul::cases, "central differences"),
        (Lie::Mixed, kernels::matmul::cases, "computed with other wants"),
    ];
    for (lie, cases, found) in lies {
        let case = cases(&SIZES).swap_remove(0);
        let ins = case.buffers(DType::F64, 1);
        check_op(&*case.op, &ins, &Options::default()).unwrap_or_else(|e| panic!("{lie:?}: {e}"));
        let liar = Liar { op: case.op, lie };
        match check_op(&liar, &ins, &Options::default()) {
            Ok(report) => panic!("{lie:?} was believed: {report}"),
            Err(failure) => assert!(failure.to_string().contains(found), "{lie:?}: {failure}"),
        }
    }
}

/// Also the ops that have no gradient at all have something planted: that they had one.
#[test]
fn a_gradient_that_an_op_does_not_have_is_not_believed() {
    let mut found = Vec::new();
    for room in ROOMS {
        for k in 0..(room.cases)(&SIZES).len() {
            let case = || (room.cases)(&SIZES).swap_remove(k);
            let (op, ins) = (case().op, case().buffers(DType::F64, 1));
            let silent = |i: &usize| ins[*i].dtype() == DType::F64 && !op.differentiable(*i);
            for i in (0..ins.len()).filter(silent) {
                let liar = Liar { op: case().op, lie: Lie::Differentiable(i) };
                let input = op.arguments()[i];
                match check_op(&liar, &ins, &Options::default()) {
                    Err(Failure::Wrong(wrong)) if wrong.input == input => found.push((op.name(), input)),
                    other => panic!("{} {input}: {other:?}", op.name()),
                }
            }
        }
    }
    found.dedup();
    assert!(found.contains(&("ring_attention", "qkv")) && found.contains(&("ring_attention", "ring")), "{found:?}");
}
