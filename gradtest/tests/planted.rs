//! Mutation proof: wrong gradients planted into every input of every op of the registry, each of which must be found.

use engine::{Buffer, Op};
use gradtest::faults::{Fault, GENERIC, Outcome, Planted};
use kernels::case::Sizes;
use kernels::registry::ROOMS;
use kernels::rope::Rope;
use kernels::slice::Slice;
use kernels::window_attention::WindowAttention;
use std::sync::Arc;

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
        change: |ins, outs, d_y, g| {
            let (gain, rstd) = (ins[1].to_f64(), outs[1].to_f64());
            for (i, g) in g.iter_mut().enumerate() {
                *g = rstd[i / gain.len()] * gain[i % gain.len()] * d_y[i];
            }
        },
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
        op: "linear",
        name: "one row of weights",
        input: 1,
        change: |ins, _, _, g| g[..ins[1].shape().last()].fill(0.0),
    },
];

fn window(heads: usize, window: usize) -> Arc<dyn Op> {
    Arc::new(WindowAttention { heads, window })
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
    ("linear_residual", "residual", "stale"),
    ("reparameterize", "mu", "stale"),
    ("slice", "x", "stale"),
    ("sum", "x", "stale"),
    // A vector is its own transpose.
    ("rmsnorm", "gain", "transposed"),
    // All numbers of this gradient are equal.
    ("sum", "x", "transposed"),
    ("sum", "x", "off by one"),
    ("sum", "x", "first for all"),
];

#[test]
fn every_planted_fault_is_found() {
    let sizes = Sizes { batch: 2, tokens: 3, heads: 2, head_dim: 2, window: 2, latents: 2, ffn: 2, vocab: 3 };
    let (mut caught, mut harmless) = (0, Vec::new());
    for room in ROOMS {
        let planted = gradtest::planted_faults(room.cases, SPECIFIC).unwrap_or_else(|e| panic!("{}: {e}", room.name));
        for case in (room.cases)(&sizes) {
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
        let case = ROOMS.iter().flat_map(|room| (room.cases)(&sizes)).find(|case| fault.op() == Some(case.op.name()));
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
