//! The front door: formulas, gradients through reshaped values, optimisers, and errors.

use autograd::gradcheck::{Options, check_graph};
use autograd::prelude::*;
use autograd::{Graph, Phase, Plan, Request, Store};
use engine::{Buffer, Shape, Spec};
use kernels::cross_entropy::LmHead;
use kernels::elementwise::Elementwise;
use kernels::reduce::Reduce;
use kernels::reshape::Reshape;
use kernels::rmsnorm::RmsNorm;

fn tape() -> Tape {
    Tape::on(Device::CPU, DType::F64, 1)
}

/// The numbers of a value computed from constants.
fn value(tensor: Tensor, tape: &Tape) -> Vec<f64> {
    let mut program = tape.compute(&[tensor]).unwrap();
    program.run();
    program.get(tensor)
}

#[test]
fn formulas_read_as_they_compute() {
    let t = tape();
    let (a, b) = (t.constant(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), t.constant(&[2], &[10.0, 20.0]));
    for (formula, expected) in [
        (a + b, [11.0, 22.0, 13.0, 24.0]),
        (b - a, [9.0, 18.0, 7.0, 16.0]),
        (-(a * 2.0) / b, [-0.2, -0.2, -0.6, -0.4]),
        (1.0 - a, [0.0, -1.0, -2.0, -3.0]),
        (6.0 / a + 1.0, [7.0, 4.0, 3.0, 2.5]),
        (a.matmul(a), [7.0, 10.0, 15.0, 22.0]),
        ((a - 2.5).relu().square(), [0.0, 0.0, 0.25, 2.25]),
        (a.transpose(), [1.0, 3.0, 2.0, 4.0]),
        (a.clamp(2.0, 3.0).pow(-1.0), [0.5, 0.5, 1.0 / 3.0, 1.0 / 3.0]),
        (a.slice(1, 1..2).pad(1, 1, 0), [0.0, 2.0, 0.0, 4.0]),
        (a.slice(0, 1..2).concat(0, &[a.slice(0, 0..1)]), [3.0, 4.0, 1.0, 2.0]),
        ((a - 2.0).choose(a, a.log()), [0.0, 2f64.ln(), 3.0, 4.0]),
    ] {
        let got = value(formula, &t);
        assert!(got.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-14), "{got:?}, should be {expected:?}");
    }
    for (formula, expected) in [(a.sum(), 10.0), (a.mean(), 2.5), (a.max(), 4.0)] {
        assert_eq!(value(formula, &t), [expected]);
    }
}

/// Reshaped values share a buffer: of a parameter, of a result, one of another, read by one op in two shapes, as the loss, and
/// kept for the caller.
#[test]
fn gradients_through_reshaped_values() {
    let t = tape();
    let w = t.parameter("w", &[6], Init::Normal(1.0));
    let v = t.parameter("v", &[2, 3], Init::Normal(1.0));
    let (row, column) = (w.reshape(&[1, 6]), w.reshape(&[6, 1]));
    let outer = column.matmul(row).tanh();
    let both = w.reshape(&[2, 3]) + v;
    let chain = both.exp().reshape(&[3, 2]).reshape(&[6]) + w;
    let sum = v + both.tanh().reshape(&[3, 2]).reshape(&[2, 3]);
    let loss = (outer.sum() + (chain * w).sum() + sum.square().sum().reshape(&[1])).reshape(&[1, 1]);
    let report = t.check(loss).unwrap();
    assert!(report.checked >= 2 && report.not_checked.is_empty(), "{report}");

    let kept = both.reshape(&[3, 2]);
    let mut program = t.compute(&[both, kept]).unwrap();
    program.run();
    assert_eq!(program.get(both), program.get(kept));

    // Only the copies that must exist run.
    let labels = t.gradients(loss).unwrap().plan().labels(Phase::Update);
    let copies = labels.iter().filter(|label| label.starts_with("reshape")).count();
    assert_eq!(copies, 4, "the loss's and the outer product's, forward and backward: {labels:#?}");
}

/// One weight in two shapes has two packed forms, of the same length.
#[test]
fn a_weight_in_two_shapes() {
    let t = tape();
    let w = t.parameter("w", &[16, 32], Init::Normal(0.1));
    let (x, z) = (t.parameter("x", &[3, 32], Init::Normal(1.0)), t.parameter("z", &[3, 16], Init::Normal(1.0)));
    let numbers: Vec<f64> = (0..512).map(|i| f64::from(i % 7)).collect();
    let (a, b) = (t.constant(&[16, 32], &numbers), t.constant(&[3, 32], &numbers[..96]));
    let both = [a.linear(w), b.linear(w)].map(|y| y.tanh().sum());
    let loss =
        both[0] + both[1] + (x.linear(w).linear(w.reshape(&[32, 16])) + z.linear(w.reshape(&[32, 16]))).square().sum();
    t.check(loss).unwrap();
    let mut program = t.gradients(loss).unwrap();
    program.run();
    assert_eq!(program.gradient(w).len(), 512);
}

#[test]
fn a_reshaped_residual_has_no_gradient() {
    let mut store = Store::new(Device::CPU);
    let leaf = |dims: &[usize]| Spec::new(DType::F64, dims);
    let (x, gain) = (store.alloc(leaf(&[4, 3])), store.alloc(leaf(&[3])));
    let mut g = Graph::new();
    let (x, gain) = (g.leaf("x", Phase::Batch, x), g.leaf("gain", Phase::Update, gain));
    let norm = g.apply(RmsNorm { eps: 1e-5 }, &[x, gain]).unwrap();
    let rstd = g.output(norm, "rstd");
    let flat = g.apply(Reshape(Shape::new(&[2, 2])), &[rstd]).unwrap();
    let root = g.apply(Reduce::sum(), &[flat]).unwrap();
    let request = Request { root: Some(root), wants: vec![x], ..Request::default() };
    let error = Plan::new(&g, &mut store, &request).unwrap_err().to_string();
    assert!(error.contains("residual"), "{error}");
}

#[test]
#[should_panic(expected = "x is f64[2, 3], cannot be set to f32[6]")]
fn an_input_of_another_type_is_named() {
    let t = tape();
    t.set(t.input("x", &[2, 3]), &[0.0f32; 6]);
}

#[test]
#[should_panic(expected = "this value is not kept: the plan was not asked for it")]
fn a_value_that_was_not_asked_for_is_refused() {
    let t = tape();
    let x = t.input("x", &[2]);
    let h = x.exp();
    t.compute(&[h.sum()]).unwrap().get(h);
}

/// A head that could compute both passes in one, but in another phase than the root.
#[test]
fn a_loss_of_the_batch_plus_a_penalty_of_the_step() {
    let mut store = Store::new(Device::CPU);
    let mut g = Graph::new();
    let mut leaf = |g: &mut Graph, name: &str, phase, numbers| {
        let id = store.insert(numbers);
        (g.leaf(name, phase, id), id)
    };
    let normal = |dims: &[usize], seed| {
        let mut x = vec![0.0; dims.iter().product()];
        Stream::new(seed, 0).fill_normal(0, &mut x, |x| x);
        Buffer::from_slice(dims, &x)
    };
    let (hidden, _) = leaf(&mut g, "hidden", Phase::Batch, normal(&[1, 3, 4], 1));
    let (table, _) = leaf(&mut g, "table", Phase::Update, normal(&[5, 4], 2));
    let (targets, _) = leaf(&mut g, "targets", Phase::Batch, Buffer::from_slice(&[1, 3], &[0, 4, 2]));
    let (scale, _) = leaf(&mut g, "scale", Phase::Update, Buffer::from_slice(&[1], &[0.5]));
    let (z, z_id) = leaf(&mut g, "z", Phase::Step, normal(&[1], 3));
    let loss = g.apply(LmHead::CrossEntropy, &[hidden, table, targets, scale]).unwrap();
    let root = g.apply(Elementwise::Add, &[loss, z]).unwrap();
    let wants = vec![hidden, table, z];
    let checked = check_graph(&g, &mut store, root, &wants, &Options::default());
    assert!(checked.unwrap_or_else(|e| panic!("{e}")).checked > 30);

    let request = Request { root: Some(root), wants, keep: vec![loss, root], ..Request::default() };
    let plan = Plan::new(&g, &mut store, &request).unwrap();
    assert!(plan.labels(Phase::Batch).contains(&"lm_head".to_string()), "{:?}", plan.labels(Phase::Batch));
    plan.run_all(&mut store);
    let number = |store: &Store, v| store.get(plan.value(v)).to_f64()[0];
    let (once, sum) = (number(&store, loss), number(&store, root));
    let gradient = store.get(plan.grad(hidden)).clone();
    // A step later only z has changed.
    store.get_mut(z_id).set_f64(&[7.0]);
    plan.run(&mut store, Phase::Step);
    assert_eq!((number(&store, loss), number(&store, root)), (once, once + 7.0));
    assert!(sum != once + 7.0 && store.get(plan.grad(hidden)).as_bytes() == gradient.as_bytes());
}

#[test]
fn every_optimiser_finds_the_minimum() {
    for (optimizer, steps) in [
        (Optimizer::sgd(0.1, 0.0), 200),
        (Optimizer::sgd(0.02, 0.9), 200),
        (Optimizer::adamw(0.1), 300),
        (Optimizer::muon(0.3), 300),
    ] {
        let t = Tape::new(3);
        let w = t.parameter("w", &[4, 4], Init::Normal(1.0));
        let target = t.constant(&[4, 4], &(0..16).map(|i| f64::from(i % 5) - 2.0).collect::<Vec<_>>());
        let loss = (w - target).square().sum();
        let mut learn = t.minimize(loss, optimizer).unwrap();
        for step in 0..steps {
            learn.set_rate(optimizer.rate * (1.0 - f64::from(step) / f64::from(steps)));
            learn.run();
        }
        assert!(learn.number(loss) < 1e-2, "{optimizer:?}: {}", learn.number(loss));
    }
}

#[test]
fn dropout_draws_anew_at_every_step() {
    let losses = || {
        let t = Tape::new(5);
        let w = t.parameter("w", &[64], Init::Ones);
        let loss = w.dropout(0.5).sum();
        let mut learn = t.minimize(loss, Optimizer::sgd(0.0, 0.0)).unwrap();
        [0; 3].map(|_| {
            learn.run();
            learn.number(loss)
        })
    };
    let [a, b, c] = losses();
    assert!(a != b && b != c && (20.0..110.0).contains(&a), "{a} {b} {c}");
    assert_eq!(losses(), [a, b, c]);
}

#[test]
fn the_first_error_is_returned_by_the_call_that_plans() {
    let t = tape();
    let (a, b) = (t.parameter("a", &[2, 3], Init::Zeros), t.parameter("b", &[4, 5], Init::Zeros));
    let refused = |t: &Tape, loss: Tensor| t.gradients(loss).unwrap_err().to_string();
    let error = refused(&t, (a.matmul(b) + 1.0).sum());
    assert!(error.starts_with("matmul: b is f64[4, 5], must ") && error.contains("tape.rs:"), "{error}");

    let t = tape();
    let a = t.parameter("a", &[2], Init::Given(vec![1.0]));
    assert!(refused(&t, a.sum()).starts_with("parameter a of [2] got 1 numbers (recorded at "));

    let t = tape();
    let _ = t.parameter("a", &[2], Init::Zeros);
    let a = t.parameter("a", &[3], Init::Zeros);
    assert!(refused(&t, a.sum()).starts_with("parameter a is f64[2], cannot also be [3] (recorded at "));

    let five = [1; 5];
    let of_five: [fn(&Tape) -> Tensor<'_>; 5] = [
        |t| t.input("x", &[1; 5]),
        |t| t.integers("x", &[1; 5]),
        |t| t.constant(&[1; 5], &[0.0]),
        |t| t.parameter("x", &[1; 5], Init::Zeros),
        |t| t.input("x", &[1]).reshape(&[1; 5]),
    ];
    for (of, what) in of_five.iter().zip(["x", "x", "a constant", "x", "a reshaped tensor"]) {
        let t = tape();
        let error = refused(&t, of(&t));
        assert!(error.starts_with(&format!("{what} of {five:?} has more than 4 dimensions (recorded at ")), "{error}");
    }

    let (t, other) = (tape(), tape());
    let sum = t.apply(Elementwise::Add, &[t.input("x", &[1]), other.input("y", &[1])]);
    assert!(refused(&t, sum).starts_with("add: an input belongs to another tape (recorded at "));
    let foreign = tape().compute(&[other.input("z", &[1])]).unwrap_err().to_string();
    assert_eq!(foreign, "a tensor of another tape cannot be computed on this one");
    let optimizer = Optimizer { rule: Rule::Sgd { momentum: 0.0, nesterov: true }, ..Optimizer::adamw(1.0) };
    let t = tape();
    assert!(
        t.minimize(t.parameter("a", &[1], Init::Zeros).sum(), optimizer)
            .unwrap_err()
            .to_string()
            .starts_with("nesterov ")
    );

    let t = tape();
    let a = t.parameter("a", &[2], Init::Zeros);
    assert_eq!(refused(&t, a + a), "the root add.y is f64[2], must be one number: the result of an op");
    let t = Tape::new(0);
    let loss = t.parameter("a", &[2], Init::Zeros).sum();
    assert_eq!(t.check(loss).unwrap_err().to_string(), "a gradient check needs a tape of f64, not of f32");
}
