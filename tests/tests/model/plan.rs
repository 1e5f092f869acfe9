//! Tests which ops a fast step runs, from its plan: no gradient of a weight, and only ops that depend on z. Also tests
//! which requests a plan refuses. (`gradtest::random_graphs` tests the gradients of plans of random graphs.)

use autograd::{Graph, Phase, Plan, Request, Store, Value};
use engine::{DType, Device, Spec};
use kernels::elementwise::Elementwise;
use kernels::reduce::Reduce;
use kernels::rmsnorm::RmsNorm;
use ltm::config::{Config, ModelKind, parameter_count};
use ltm::train::Trainer;
use tests::tiny;

fn trainer(kind: &str) -> Trainer {
    let sizes = "model.layers=3 model.dim=64 model.seq=64 train.batch=2";
    Trainer::new(tiny(&format!("{sizes} model.kind={kind}")), &Device::CPU).unwrap()
}

#[test]
fn a_fast_step_computes_no_weight_gradient() {
    let t = trainer("ltm");
    let c = &t.config;
    let (b, n, d) = (c.train.batch as u64, c.model.seq as u64, c.model.dim as u64);
    let (f, v, k) = (c.model.ffn as u64, c.model.vocab as u64, c.model.latents as u64);
    let per_layer = [3 * d, d, d, d, 2 * f, f].map(|out| out * d);
    // Per token, every product costs 2 FLOPs a weight forward and 2 for the gradient of its input. In the first layer qkv,
    // its output projection and the cross-attention's query are hoisted, and their inputs need no gradient.
    let all: u64 = per_layer.iter().sum::<u64>();
    let hoisted = per_layer[..3].iter().sum::<u64>();
    let products = b * n * (4 * (3 * all - hoisted) + 4 * v * d);
    // Keys and values of the latents: forward and the gradient of z.
    let latents = b * k * 3 * 4 * 2 * d * d;
    let passes = t.fast.as_ref().unwrap().plan.passes(Phase::Step);
    let counted: u64 =
        passes.filter(|(op, ..)| op.contains("linear") || op.contains("lm_head")).map(|(_, _, cost)| cost.flops).sum();
    let expected = products + latents;
    // The head's exponentials and other elementwise work add a few per cent at this vocabulary.
    assert!(counted >= expected && counted < expected + expected / 10, "{counted} FLOPs, products alone {expected}");
}

#[test]
fn a_fast_step_repeats_nothing_that_does_not_depend_on_z() {
    let t = trainer("ltm");
    let plan = &t.fast.as_ref().unwrap().plan;
    let (batch, step) = (plan.labels(Phase::Batch), plan.labels(Phase::Step));
    for once in ["embedding", "layers.0 self_attention", "layers.0 linear", "layers.0 rope"] {
        assert!(batch.iter().any(|l| l.starts_with(once)), "{once} is not among {batch:#?}");
    }
    assert!(plan.labels(Phase::Update).iter().any(|l| l.contains("rope_table")));
    for never in ["embedding", "layers.0 self_attention", "rope_table"] {
        assert!(!step.iter().any(|l| l.contains(never)), "{never} is among {step:#?}");
    }
    assert!(step.iter().any(|l| l.contains("layers.1 self_attention backward")));
    // The backward pass stops at z.
    let last = step.iter().rposition(|l| l.ends_with("backward")).unwrap();
    assert!(step[last].starts_with("layers.0 slice"), "the last gradient is {}", step[last]);
    assert!(step.last().unwrap().contains("in place"), "the update comes last");
}

/// The baseline `ar` has as many weights as the model with latents, or a few more, whatever the hidden size; `ar-latent` has
/// the same and its latents.
#[test]
fn the_baseline_has_as_many_parameters() {
    for name in ["small", "medium", "large", "tiny", "demo"] {
        for ffn in ["0", "96"] {
            let mut config = Config::preset(name).unwrap();
            config.set("model.ffn", ffn).unwrap();
            let [ltm, ar, constant] = [ModelKind::Ltm, ModelKind::Ar, ModelKind::ArLatent]
                .map(|kind| config.of_kind(kind).resolved().unwrap().model);
            let [count, of_ar, of_constant] = [&ltm, &ar, &constant].map(parameter_count);
            assert_eq!(of_constant, count + ltm.latent_count() * ltm.dim, "{name}, {ffn}");
            let row = 3 * ltm.dim * ltm.layers;
            assert!(of_ar >= count && of_ar < count + row, "{name}, {ffn}: {of_ar} against {count}");
            // Literal where it is trained by itself.
            config.set("model.kind", "ar").unwrap();
            assert_eq!(config.resolved().unwrap().model.ffn == 96, ffn == "96");
        }
    }
    let baseline = trainer("ar");
    assert!(baseline.fast.is_none());
    let [gradient, _] = baseline.slow.plans();
    let labels: Vec<String> = Phase::ALL.iter().flat_map(|&p| gradient.labels(p)).collect();
    assert!(labels.iter().any(|l| l.contains("self_attention")), "{labels:#?}");
    assert!(labels.iter().all(|l| !l.contains("cross_attention") && !l.contains("slice")), "{labels:#?}");
}

/// `root = Σ (normed + noise)` with `normed = rmsnorm(x)`, which is computed once per weight update; and a leaf that nothing
/// uses: `x`, `unused`, `normed`, `root`.
fn recorded() -> (Store, Graph, [Value; 4]) {
    let mut store = Store::new(Device::CPU);
    let mut graph = Graph::new();
    let mut leaf =
        |g: &mut Graph, name, phase, dims: &[usize]| g.leaf(name, phase, store.alloc(Spec::new(DType::F64, dims)));
    let x = leaf(&mut graph, "x", Phase::Update, &[3, 4]);
    let noise = leaf(&mut graph, "noise", Phase::Step, &[3, 4]);
    let unused = leaf(&mut graph, "unused", Phase::Step, &[3, 4]);
    let gain = leaf(&mut graph, "gain", Phase::Update, &[4]);
    let normed = graph.apply(RmsNorm { eps: 0.1 }, &[x, gain]).unwrap();
    let noisy = graph.apply(Elementwise::Add, &[normed, noise]).unwrap();
    let root = graph.apply(Reduce::sum(), &[noisy]).unwrap();
    (store, graph, [x, unused, normed, root])
}

#[test]
fn what_cannot_be_planned_is_refused_in_a_line() {
    let (mut store, mut graph, [x, unused, normed, root]) = recorded();
    // The gradient must not stop silently at a residual.
    let rstd = graph.output(normed, "rstd");
    let through_rstd = graph.apply(Reduce::sum(), &[rstd]).unwrap();
    let cases = [
        (normed, x, "must be one number"),
        (root, normed, "not a leaf"),
        (root, unused, "wanted for unused, on which the root does not depend"),
        (through_rstd, x, "residual"),
    ];
    for (root, want, expected) in cases {
        let request = Request { root: Some(root), wants: vec![want], ..Request::default() };
        let error = Plan::new(&graph, &mut store, &request).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
}

#[test]
#[should_panic(expected = "the arena belongs to another plan")]
fn a_step_whose_earlier_phases_were_overwritten_is_a_bug() {
    let (mut store, graph, [x, .., root]) = recorded();
    let request = Request { root: Some(root), wants: vec![x], ..Request::default() };
    let first = Plan::new(&graph, &mut store, &request).unwrap();
    let second = Plan::new(&graph, &mut store, &request).unwrap();
    first.run_all(&mut store);
    second.run_all(&mut store);
    first.run(&mut store, Phase::Step);
}
