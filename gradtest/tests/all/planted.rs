//! Mutation tests: plants wrong gradients into every input of every op of the registry and requires that each is found.

use crate::{SIZES, all_cases, drawn};
use autograd::gradcheck::{Failure, Options, check_op};
use engine::{Buffer, DType};
use gradtest::{Fault, Strategy, first_failure, planted_faults};
use kernels::case::{Case, Sizes};
use kernels::cross_attention::CrossAttention;
use kernels::cross_entropy::LmHead;
use kernels::elementwise::Elementwise;
use kernels::modulate::Modulate;
use kernels::rope::Rope;
use kernels::self_attention::{Sees, SelfAttention};
use kernels::slice::{Pad, Slice};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The first case of an op, at random sizes.
fn cases_of(op: &str) -> impl Strategy<Value = (Sizes, Case)> {
    let k = all_cases(&SIZES).iter().position(|case| case.op.name() == op);
    let k = k.unwrap_or_else(|| panic!("no op {op}"));
    drawn(k)
}

fn attention(heads: usize, sees: Sees) -> Fault {
    Fault::VjpOf(Arc::new(SelfAttention { heads, sees }))
}

/// A mistake specific to one op: the op, the inputs with wrong gradients, a description, and the fault.
type Specific = (&'static str, &'static [usize], &'static str, fn(&Sizes) -> Fault);

const SPECIFIC: &[Specific] = &[
    ("self_attention", &[0], "window one too wide", |s| attention(s.heads, Sees::Window(s.window + 1))),
    ("self_attention", &[0], "window one too narrow", |s| attention(s.heads, Sees::Window((s.window - 1).max(1)))),
    ("self_attention", &[0], "sees what comes later", |s| attention(s.heads, Sees::All)),
    ("self_attention", &[0], "one head", |s| attention(1, Sees::Window(s.window))),
    ("cross_attention", &[0, 1], "one head", |_| Fault::VjpOf(Arc::new(CrossAttention { heads: 1 }))),
    ("slice", &[0], "one row late", |s| Fault::VjpOf(Arc::new(Slice { axis: 1, start: 1, len: s.latents }))),
    ("pad", &[0], "one row early", |_| Fault::VjpOf(Arc::new(Pad { axis: 1, before: 1, after: 2 }))),
    ("concat", &[1], "without its offset", |_| Fault::Changes(|_, _, d_y, g| g.copy_from_slice(&d_y[..g.len()]))),
    ("permute", &[0], "in the order of the result", |_| Fault::Changes(|_, _, d_y, g| g.copy_from_slice(d_y))),
    ("dropout", &[0], "another step's mask", |_| Fault::Sees(|ins| ins[1].as_mut_slice::<i32>()[0] += 1)),
    ("dropout", &[0], "without the scale", |_| Fault::Changes(|_, _, _, g| g.iter_mut().for_each(|g| *g *= 0.7))),
    ("scatter_add", &[0], "of the first row", |_| Fault::Sees(|ins| ins[1].as_mut_slice::<i32>().fill(0))),
    ("rope", &[0], "one head too many rotated", |s| {
        Fault::VjpOf(Arc::new(Rope { heads: 3 * s.heads, rotated: 2 * s.heads + 1 }))
    }),
    ("rope", &[0], "rotated forth", |_| Fault::Sees(|ins| map(&mut ins[1], |i, x| if i % 2 == 1 { -x } else { x }))),
    ("lm_head", &[0, 1], "the neighbour's target", |_| Fault::Sees(|ins| ins[2].as_mut_slice::<i32>().rotate_right(1))),
    ("lm_head", &[0, 1], "without the scale", |_| Fault::Sees(|ins| ins[3].set_f64(&[1.0]))),
    ("score_entropy", &[0, 1], "of normalised scores", |_| Fault::VjpOf(Arc::new(LmHead::CrossEntropy))),
    ("score_entropy", &[0, 1], "the neighbour's scale", |_| {
        Fault::Sees(|ins| ins[3].as_mut_slice::<f64>().rotate_right(1))
    }),
    ("modulate", &[0], "without the base", |_| Fault::VjpOf(Arc::new(Modulate { base: 0.0 }))),
    ("modulate", &[0], "the factor of another sample", |_| {
        Fault::Sees(|ins| {
            let width = ins[2].shape().last();
            ins[2].as_mut_slice::<f64>().rotate_left(width);
        })
    }),
    ("modulate", &[1, 2], "of all but the last sample", |_| {
        Fault::Changes(|ins, _, _, g| {
            let width = ins[1].shape().last();
            let last = g.len() - width;
            g[last..].fill(0.0);
        })
    }),
    ("linear_residual", &[0], "bf16 weights", |_| {
        Fault::Sees(|ins| map(&mut ins[1], |_, x| (x * 256.0).round() / 256.0))
    }),
    ("embedding", &[0], "a repeated token counts once", |_| {
        Fault::Changes(|ins, _, d_y, g| {
            let width = ins[0].shape().last();
            for (&token, row) in ins[1].as_slice::<i32>().iter().zip(d_y.chunks(width)) {
                g[token as usize * width..][..width].copy_from_slice(row);
            }
        })
    }),
    ("rmsnorm", &[0], "without the mean's gradient", |_| {
        Fault::Changes(|ins, outs, d_y, g| scaled(ins[1], outs[1], d_y, g))
    }),
    ("layernorm", &[0], "without the statistics' gradients", |_| {
        Fault::Changes(|ins, outs, d_y, g| scaled(ins[1], outs[2], d_y, g))
    }),
    ("gelu", &[0], "without the slope of the sigmoid", |_| {
        Fault::Changes(|ins, _, d_y, g| {
            for ((g, d_y), u) in g.iter_mut().zip(d_y).zip(ins[0].to_f64()) {
                let a = (8.0 / std::f64::consts::PI).sqrt() * (u + 0.044715 * u * u * u);
                *g = d_y / (1.0 + (-a).exp());
            }
        })
    }),
    ("swiglu", &[0], "halves swapped", |_| {
        Fault::Changes(|ins, _, _, g| {
            let width = ins[0].shape().last();
            g.chunks_mut(width).for_each(|row| row.rotate_left(width / 2));
        })
    }),
    ("swiglu", &[0], "the gate's slope without its second term", |_| {
        Fault::Changes(|ins, _, d_y, g| {
            let (u, f) = (ins[0].to_f64(), ins[0].shape().last() / 2);
            for (i, d_y) in d_y.iter().enumerate() {
                let at = i / f * 2 * f + i % f;
                g[at] = d_y * u[at + f] / (1.0 + (-u[at]).exp());
            }
        })
    }),
    ("gaussian_kl", &[1], "without the entropy", |_| {
        Fault::Changes(|ins, _, d_kl, g| {
            let (logvar, each) = (ins[1].to_f64(), g.len() / d_kl.len());
            for (i, g) in g.iter_mut().enumerate() {
                *g = 0.5 * d_kl[i / each] * logvar[i].exp();
            }
        })
    }),
    ("reparameterize", &[1], "of sigma, not of its logarithm's double", |_| {
        Fault::Changes(|_, _, _, g| g.iter_mut().for_each(|g| *g *= 2.0))
    }),
    ("gelu", &[0], "at some magnitudes", |_| {
        Fault::Changes(|ins, _, _, g| {
            let changed = g.iter_mut().zip(ins[0].to_f64()).filter(|(_, u)| (4.9..9.5).contains(u));
            changed.for_each(|(g, _)| *g = -*g);
        })
    }),
    ("gelu", &[0], "by three millionths", |_| Fault::Changes(|_, _, _, g| g.iter_mut().for_each(|g| *g *= 1.0 + 3e-6))),
    ("sum", &[0], "of all but the last", |_| Fault::Changes(|_, _, _, g| *g.last_mut().unwrap() = 0.0)),
    ("add", &[1], "half to each", |_| Fault::Changes(|_, _, _, g| g.iter_mut().for_each(|g| *g *= 0.5))),
    ("reshape", &[0], "of all but the last", |_| Fault::Changes(|_, _, _, g| *g.last_mut().unwrap() = 0.0)),
    ("sub", &[1], "with the sign of a sum", |_| Fault::VjpOf(Arc::new(Elementwise::Add))),
    ("mul", &[0, 1], "as of a quotient", |_| Fault::VjpOf(Arc::new(Elementwise::Div))),
    ("div", &[0], "as of a product", |_| Fault::VjpOf(Arc::new(Elementwise::Mul))),
    ("div", &[1], "without the divisor's square", |_| {
        Fault::Changes(|ins, _, _, g| g.iter_mut().zip(ins[1].to_f64().iter().cycle()).for_each(|(g, b)| *g *= b))
    }),
    ("neg", &[0], "of the absolute value", |_| Fault::VjpOf(Arc::new(Elementwise::Abs))),
    ("exp", &[0], "of the logarithm", |_| Fault::VjpOf(Arc::new(Elementwise::Log))),
    ("log", &[0], "of the root", |_| Fault::VjpOf(Arc::new(Elementwise::Sqrt))),
    ("sqrt", &[0], "of the logarithm", |_| Fault::VjpOf(Arc::new(Elementwise::Log))),
    ("pow", &[0], "of another power", |_| Fault::VjpOf(Arc::new(Elementwise::Pow(2.0)))),
    ("tanh", &[0], "of the sigmoid", |_| Fault::VjpOf(Arc::new(Elementwise::Sigmoid))),
    ("sigmoid", &[0], "of the hyperbolic tangent", |_| Fault::VjpOf(Arc::new(Elementwise::Tanh))),
    ("relu", &[0], "of the absolute value", |_| Fault::VjpOf(Arc::new(Elementwise::Abs))),
    ("silu", &[0], "without the slope of the sigmoid", |_| {
        Fault::Changes(|ins, _, d_y, g| {
            let each = g.iter_mut().zip(d_y).zip(ins[0].to_f64());
            each.for_each(|((g, d_y), x)| *g = d_y / (1.0 + (-x).exp()));
        })
    }),
    ("abs", &[0], "of the rectified unit", |_| Fault::VjpOf(Arc::new(Elementwise::Neg))),
    ("clamp", &[0], "without the upper bound", |_| {
        Fault::VjpOf(Arc::new(Elementwise::Clamp { low: -0.5, high: f64::INFINITY }))
    }),
    ("where", &[1], "of both branches", |_| {
        Fault::Changes(|_, _, d_y, g| {
            g.iter_mut().zip(d_y).for_each(|(g, d_y)| *g = *d_y);
        })
    }),
    ("squared_error", &[0, 1], "without the factor 2", |_| {
        Fault::Changes(|_, _, _, g| g.iter_mut().for_each(|g| *g *= 0.5))
    }),
    ("binary_cross_entropy", &[0], "without the targets", |_| Fault::Sees(|ins| map(&mut ins[1], |_, _| 0.0))),
    ("mean", &[0], "as of a sum", |_| {
        Fault::Changes(|ins, _, _, g| g.iter_mut().for_each(|g| *g *= ins[0].shape().dims()[1] as f64))
    }),
    ("max", &[0], "to the first place", |_| {
        Fault::Changes(|ins, _, d_y, g| {
            let &[_, n, width] = ins[0].shape().dims() else { unreachable!("three dimensions") };
            g.fill(0.0);
            g.chunks_mut(n * width).zip(d_y.chunks(width)).for_each(|(g, d_y)| g[..width].copy_from_slice(d_y));
        })
    }),
    ("softmax", &[0], "without the sum's gradient", |_| {
        Fault::Changes(|_, outs, d_y, g| {
            g.iter_mut().zip(outs[0].to_f64()).zip(d_y).for_each(|((g, y), d_y)| *g = y * d_y);
        })
    }),
    ("log_softmax", &[0], "without the sum's gradient", |_| Fault::Changes(|_, _, d_y, g| g.copy_from_slice(d_y))),
    ("cross_entropy", &[0], "the neighbour's target", |_| {
        Fault::Sees(|ins| ins[1].as_mut_slice::<i32>().rotate_right(1))
    }),
    ("cast", &[0], "rounded to bf16 on the way back", |_| {
        Fault::Changes(|_, _, _, g| {
            let rounded = Buffer::from_f64(DType::Bf16, &[g.len()], g).to_f64();
            g.copy_from_slice(&rounded);
        })
    }),
    ("matmul", &[0], "the next matrix of the other factor", |_| {
        Fault::Sees(|ins| {
            // [B, H, n, k]
            let shape = ins[1].shape();
            ins[1].as_mut_slice::<f64>().rotate_left(shape.dims()[2] * shape.last());
        })
    }),
    ("linear", &[1], "one row of weights", |_| Fault::Changes(|ins, _, _, g| g[..ins[1].shape().last()].fill(0.0))),
];

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

/// Faults that change nothing, for mathematical reasons.
const HARMLESS: &[(&str, &str, &str)] = &[
    // Nothing is read, so nothing can be stale; the place of a maximum stays where it was.
    ("add", "a", "Stale"),
    ("add", "b", "Stale"),
    ("cast", "x", "Stale"),
    ("concat", "x0", "Stale"),
    ("concat", "x1", "Stale"),
    // Steps go round in a list of one.
    ("dropout", "x", "Stale"),
    ("layernorm", "bias", "Stale"),
    ("linear_residual", "residual", "Stale"),
    ("max", "x", "Stale"),
    ("mean", "x", "Stale"),
    ("modulate", "term", "Stale"),
    ("neg", "x", "Stale"),
    ("pad", "x", "Stale"),
    ("permute", "x", "Stale"),
    ("reparameterize", "mu", "Stale"),
    ("reshape", "x", "Stale"),
    ("slice", "x", "Stale"),
    ("sub", "a", "Stale"),
    ("sub", "b", "Stale"),
    ("sum", "x", "Stale"),
    // The last element of the result is a zero, or another input's.
    ("concat", "x0", "MissingTerm"),
    ("pad", "x", "MissingTerm"),
    // A vector is its own transpose.
    ("layernorm", "bias", "Transposed"),
    ("layernorm", "gain", "Transposed"),
    ("rmsnorm", "gain", "Transposed"),
];

#[test]
fn every_fault_that_any_gradient_can_have_is_found() {
    let ops: BTreeSet<&str> = all_cases(&SIZES).iter().map(|case| case.op.name()).collect();
    let mut harmless = BTreeSet::new();
    for op in ops {
        let unfound = planted_faults(cases_of(op).prop_map(|(_, case)| case)).unwrap_or_else(|e| panic!("{op}: {e}"));
        harmless.extend(unfound.into_iter().map(|(input, fault)| (op, input, format!("{fault:?}"))));
        let case = all_cases(&SIZES).into_iter().find(|case| case.op.name() == op).unwrap();
        let own = SPECIFIC.iter().any(|(of, ..)| *of == op);
        assert!(own || case.differentiable().next().is_none(), "{op} has no specific planted fault");
    }
    let expected = HARMLESS.iter().map(|&(op, input, fault)| (op, input, fault.to_string())).collect();
    assert_eq!(harmless, expected, "faults that changed no gradient");
}

#[test]
fn every_fault_of_one_op_is_found() {
    for (op, inputs, name, fault) in SPECIFIC {
        for &i in *inputs {
            match first_failure(cases_of(op).prop_map(move |(s, case)| fault(&s).plant(i, case))) {
                Some(Failure::Wrong(_)) => {}
                other => panic!("{op}: \"{name}\" in the gradient of input {i} was not found: {other:?}"),
            }
        }
    }
}

#[test]
fn what_an_op_gets_wrong_around_its_gradient_is_found() {
    let faults = [
        (Fault::PassedThrough, "rmsnorm", "which the op claims to pass through"),
        (Fault::Fused, "lm_head", "separate forward and backward passes"),
        (Fault::Alone, "linear", "central differences"),
        (Fault::Mixed, "linear", "computed with other wants"),
    ];
    for (fault, op, found) in faults {
        let case = all_cases(&SIZES).into_iter().find(|case| case.op.name() == op).unwrap();
        let ins = case.buffers(DType::F64, 1);
        check_op(&*case.op, &ins, &Options::default()).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        let wrong = fault.clone().plant(0, case);
        match check_op(&*wrong.op, &ins, &Options::default()) {
            Ok(report) => panic!("{fault:?} was not found: {report}"),
            Err(failure) => assert!(failure.to_string().contains(found), "{fault:?}: {failure}"),
        }
    }
}

/// For ops without a gradient, the planted fault is the claim that they have one.
#[test]
fn a_gradient_that_an_op_does_not_have_is_not_believed() {
    let mut found = Vec::new();
    for case in all_cases(&SIZES) {
        let (op, ins) = (&case.op, case.buffers(DType::F64, 1));
        // The gradient of a condition is zero, as the fault says.
        let silent = |i: &usize| ins[*i].dtype() == DType::F64 && !op.differentiable(*i) && op.name() != "where";
        for i in (0..ins.len()).filter(silent) {
            let input = op.arguments()[i];
            match check_op(&*Fault::Invented.plant(i, case.clone()).op, &ins, &Options::default()) {
                Err(Failure::Wrong(wrong)) if wrong.input == input => found.push((op.name(), input)),
                other => panic!("{} {input}: {other:?}", op.name()),
            }
        }
    }
    assert!(found.contains(&("ring_attention", "qkv")) && found.contains(&("ring_attention", "ring")), "{found:?}");
}
