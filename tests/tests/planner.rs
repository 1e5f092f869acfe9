//! Random graphs: plans against central differences and against each other. They repeat inputs, share values between
//! consumers, pass gradients through, and live in one arena.

use autograd::{Graph, Hoist, Phase, Plan, Prepare, Request, Store, Value};
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Spec};
use kernels::add::Add;
use kernels::matmul::{Linear, LinearResidual};
use kernels::rmsnorm::RmsNorm;
use kernels::sum::Sum;
use proptest::prelude::*;

const SPEC: Spec = Spec::new(DType::F64, &[3, 4]);

struct Built {
    graph: Graph,
    leaves: Vec<Value>,
    root: Value,
    last: Value,
}

/// Three leaves [3, 4], a square matrix and a gain; then ops chosen by `choices` on any of the values so far.
fn build(store: &mut Store, choices: &[(u8, u8, u8, u8)]) -> Built {
    let mut g = Graph::new();
    let random = |dims: &[usize], site: u32| {
        let mut values = vec![0.0; dims.iter().product()];
        Stream::new(9, site).fill_normal(&mut values, |x| 0.6 * x + 0.3);
        Buffer::from_f64(DType::F64, dims, &values)
    };
    let mut leaf = |name: &str, dims: &[usize], phase: Phase, site: u32, g: &mut Graph| {
        let id = store.insert(random(dims, site));
        g.leaf(name, phase, id)
    };
    let a = leaf("a", &[3, 4], Phase::Batch, 0, &mut g);
    let b = leaf("b", &[3, 4], Phase::Step, 1, &mut g);
    let c = leaf("c", &[3, 4], Phase::Update, 2, &mut g);
    let w = leaf("w", &[4, 4], Phase::Update, 3, &mut g);
    let gain = leaf("gain", &[4], Phase::Update, 4, &mut g);
    let mut values = vec![a, b, c];
    for &(op, x, y, z) in choices {
        let pick = |i: u8| values[i as usize % values.len()];
        let (x, y, z) = (pick(x), pick(y), pick(z));
        let out = match op % 5 {
            0 => g.apply(Add, &[x, y]),
            1 => g.apply(LinearResidual, &[x, w, z]),
            2 => g.apply(RmsNorm { eps: 0.1 }, &[x, gain]),
            3 => g.apply(Linear, &[x, w]),
            _ => g.apply(Add, &[x, x]),
        };
        values.push(out.unwrap());
    }
    // Everything reaches the root, through a shape that sums to a number that is not linear in the leaves.
    let mut total = values[0];
    for &v in &values[1..] {
        total = g.apply(Add, &[total, v]).unwrap();
    }
    let total = g.apply(LinearResidual, &[total, w, total]).unwrap();
    let last = g.apply(RmsNorm { eps: 0.1 }, &[total, gain]).unwrap();
    let root = g.apply(Sum, &[last]).unwrap();
    Built { graph: g, leaves: vec![a, b, c, w, gain], root, last }
}

fn gradients(
    built: &Built,
    store: &mut Store,
    wants: &[Value],
    hoist: Hoist,
    prepare: Prepare,
) -> (f64, Vec<Vec<f64>>) {
    let request = Request {
        root: Some(built.root),
        wants: wants.to_vec(),
        keep: vec![built.root],
        hoist,
        prepare,
        ..Request::default()
    };
    let plan = Plan::new(&built.graph, store, &request).unwrap();
    plan.run_all(store);
    let value = store.get(plan.value(built.root)).to_f64()[0];
    // A second step must not disturb what earlier phases left.
    plan.run(store, Phase::Step);
    assert_eq!(store.get(plan.value(built.root)).to_f64()[0].to_bits(), value.to_bits());
    (value, wants.iter().map(|&v| store.get(plan.grad(v)).to_f64()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plans_of_random_graphs(choices in proptest::collection::vec(any::<(u8, u8, u8, u8)>(), 0..12), subset in 1u8..32) {
        let mut store = Store::new(Device::Cpu);
        let built = build(&mut store, &choices);
        let wants: Vec<Value> = built.leaves.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, v)| *v).collect();
        let (_, grads) = gradients(&built, &mut store, &wants, Hoist::On, Prepare::Off);
        // Neither hoisting nor preparing changes a bit, nor does what else is wanted.
        prop_assert!(gradients(&built, &mut store, &wants, Hoist::Off, Prepare::Off).1 == grads);
        prop_assert!(gradients(&built, &mut store, &wants, Hoist::On, Prepare::On).1 == grads);
        let (_, all) = gradients(&built, &mut store, &built.leaves, Hoist::On, Prepare::Off);
        for (want, grad) in wants.iter().zip(&grads) {
            let i = built.leaves.iter().position(|v| v == want).unwrap();
            prop_assert!(&all[i] == grad);
        }
        // Central differences along a random direction of each leaf. Leaves are the store's first buffers, in order.
        let forward = Request { keep: vec![built.root], ..Request::default() };
        let plan = Plan::new(&built.graph, &mut store, &forward).unwrap();
        for (i, grad) in all.iter().enumerate() {
            let id = store.ids().nth(i).unwrap();
            let base = store.get(id).to_f64();
            let mut direction = vec![0.0; base.len()];
            Stream::new(4, i as u32).fill_normal(&mut direction, |x| x);
            let mut at = |t: f64| {
                let moved: Vec<f64> = base.iter().zip(&direction).map(|(x, d)| x + t * d).collect();
                store.get_mut(id).set_f64(&moved);
                plan.run_all(&mut store);
                store.get(plan.value(built.root)).to_f64()[0]
            };
            let h = 1e-4;
            let numeric = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
            at(0.0);
            let claimed: f64 = grad.iter().zip(&direction).map(|(g, d)| g * d).sum();
            prop_assert!((claimed - numeric).abs() <= 1e-6 * numeric.abs().max(1e-2), "leaf {i}: {claimed} {numeric}");
        }
    }
}

#[test]
fn what_cannot_be_planned_is_refused_in_a_line() {
    let mut store = Store::new(Device::Cpu);
    let built = build(&mut store, &[]);
    let mut refuse = |request: Request| Plan::new(&built.graph, &mut store, &request).unwrap_err().to_string();
    let root = Some(built.root);
    let not_one = refuse(Request { root: Some(built.last), ..Request::default() });
    assert!(not_one.contains("must be one number"), "{not_one}");
    let no_leaf = refuse(Request { root, wants: vec![built.last], ..Request::default() });
    assert!(no_leaf.contains("no leaf"), "{no_leaf}");
    let mut g = Graph::new();
    let id = store.insert(Buffer::new(SPEC));
    let (x, unused) = (g.leaf("x", Phase::Step, id), g.leaf("unused", Phase::Step, id));
    let y = g.apply(Sum, &[x]).unwrap();
    let request = Request { root: Some(y), wants: vec![unused], ..Request::default() };
    let error = Plan::new(&g, &mut store, &request).unwrap_err().to_string();
    assert!(error.contains("unused") && error.contains("does not depend"), "{error}");
    // A residual on a wanted path: the gradient must not stop there in silence.
    let gain_id = store.insert(Buffer::new(Spec::new(DType::F64, &[4])));
    let gain = g.leaf("gain", Phase::Update, gain_id);
    let normed = g.apply(RmsNorm { eps: 0.1 }, &[x, gain]).unwrap();
    let rstd = g.output(normed, "rstd");
    let root = g.apply(Sum, &[rstd]).unwrap();
    let request = Request { root: Some(root), wants: vec![x], ..Request::default() };
    let error = Plan::new(&g, &mut store, &request).unwrap_err().to_string();
    assert!(error.contains("residual"), "{error}");
}

#[test]
#[should_panic(expected = "the arena belongs to another plan")]
fn a_step_whose_earlier_phases_were_overwritten_is_a_bug() {
    let mut store = Store::new(Device::Cpu);
    let built = build(&mut store, &[(3, 0, 0, 0), (1, 3, 0, 1)]);
    let request = Request { root: Some(built.root), wants: vec![built.leaves[1]], ..Request::default() };
    let first = Plan::new(&built.graph, &mut store, &request).unwrap();
    let second = Plan::new(&built.graph, &mut store, &request).unwrap();
    first.run_all(&mut store);
    second.run_all(&mut store);
    first.run(&mut store, Phase::Step);
}
