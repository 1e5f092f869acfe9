//! What a plan refuses. That plans of random graphs have the right gradients, with the same bits however they are planned,
//! is what `gradtest::random_graphs` proves.

use autograd::{Graph, Phase, Plan, Request, Store, Value};
use engine::{DType, Device, Spec};
use kernels::add::Add;
use kernels::rmsnorm::RmsNorm;
use kernels::sum::Sum;

/// `root = Σ (normed + noise)` with `normed = rmsnorm(x)`, which is computed once per weight update; and a leaf that nothing
/// uses: `x`, `unused`, `normed`, `root`.
fn recorded() -> (Store, Graph, [Value; 4]) {
    let mut store = Store::new(Device::Cpu);
    let mut graph = Graph::new();
    let mut leaf =
        |g: &mut Graph, name, phase, dims: &[usize]| g.leaf(name, phase, store.alloc(Spec::new(DType::F64, dims)));
    let x = leaf(&mut graph, "x", Phase::Update, &[3, 4]);
    let noise = leaf(&mut graph, "noise", Phase::Step, &[3, 4]);
    let unused = leaf(&mut graph, "unused", Phase::Step, &[3, 4]);
    let gain = leaf(&mut graph, "gain", Phase::Update, &[4]);
    let normed = graph.apply(RmsNorm { eps: 0.1 }, &[x, gain]).unwrap();
    let noisy = graph.apply(Add, &[normed, noise]).unwrap();
    let root = graph.apply(Sum, &[noisy]).unwrap();
    (store, graph, [x, unused, normed, root])
}

#[test]
fn what_cannot_be_planned_is_refused_in_a_line() {
    let (mut store, mut graph, [x, unused, normed, root]) = recorded();
    // The gradient must not stop in silence at a residual.
    let rstd = graph.output(normed, "rstd");
    let through_rstd = graph.apply(Sum, &[rstd]).unwrap();
    let cases = [
        (normed, x, "must be one number"),
        (root, normed, "no leaf"),
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
