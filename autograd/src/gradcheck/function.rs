//! The check of a scalar function, recorded as a graph or not.

use super::numeric::{Numeric, Value as Number};
use super::report::{Check, Failure, Report, Wrong};
use super::{Options, first_difference};
use crate::graph::{Graph, Value};
use crate::plan::{Plan, Request};
use crate::store::{Id, Store};
use engine::{DType, Error, parallel};

/// An input of a function, and its claimed gradient.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Name of the input.
    pub name: &'a str,
    /// Its numbers at the point.
    pub at: &'a [f64],
    /// The gradient's numbers.
    pub gradient: &'a [f64],
}

/// Checks claimed gradients of any function against central differences. `function` gets the numbers of all inputs in order.
///
/// ```
/// use autograd::gradcheck::{Claim, Failure, Options, check_function};
///
/// let f = |x: &[Vec<f64>]| x[0][0] * x[1][0].sin();
/// let x = Claim { name: "x", at: &[2.0], gradient: &[0.5f64.sin()] };
/// let y = Claim { name: "y", at: &[0.5], gradient: &[2.0 * 0.5f64.cos()] };
/// let report = check_function("f", &[x, y], f, &Options::default())?;
/// assert_eq!(report.certified, ["x", "y"]);
///
/// let wrong = Claim { gradient: &[-2.0 * 0.5f64.cos()], ..y };
/// let failure = check_function("f", &[x, wrong], f, &Options::default()).unwrap_err().to_string();
/// assert!(failure.starts_with("f: gradient of y[0] is -1.755165124e0, should be 1.755165124e0 by central differences"));
/// # Ok::<(), Failure>(())
/// ```
///
/// # Errors
/// The first input with a wrong gradient, with its worst entry; or a gradient whose size differs from its input's.
pub fn check_function(
    name: &str,
    claims: &[Claim],
    mut function: impl FnMut(&[Vec<f64>]) -> f64,
    options: &Options,
) -> Result<Report, Failure> {
    let mut point: Vec<Vec<f64>> = claims.iter().map(|claim| claim.at.to_vec()).collect();
    let mut report = Report::default();
    for (i, claim) in claims.iter().enumerate() {
        let (got, want) = (claim.gradient.len(), claim.at.len());
        if got != want {
            let message = format!("the gradient of {} has {got} numbers, must have {want}, as the input", claim.name);
            return Err(Error::usage(message).at(name).into());
        }
        let value = |x: &[f64]| {
            point[i].copy_from_slice(x);
            let value = function(&point);
            Number { value, scale: value.abs() }
        };
        let numeric = Numeric::of(i, claim.at, value, options);
        point[i].copy_from_slice(claim.at);
        let worst = numeric.compare(claim.name, claim.gradient, &mut report);
        let wanted: Vec<&str> = claims.iter().map(|c| c.name).collect();
        Wrong::refuse(name, claim.name, &wanted, Check::Numeric, worst, options.seed)?;
    }
    Ok(report)
}

/// Checks the gradients of the scalar `root` with respect to the leaves `wants`, at the values in the store. It
/// compares them with central differences. It also computes them for each leaf alone, without hoisting, and with
/// prepared forms, which must give the same bits.
///
/// The store's leaves do not change; the store keeps the buffers of the plans. To check a result that is not a scalar,
/// reduce it with a [`Projection`](super::Projection).
///
/// # Errors
/// The first leaf with a wrong gradient, with its worst entry. Also an error if planning fails, or if a leaf is not f64
/// or shares its buffer with another leaf.
pub fn check_graph(
    graph: &Graph,
    store: &mut Store,
    root: Value,
    wants: &[Value],
    options: &Options,
) -> Result<Report, Failure> {
    // Enters the pool once for all runs of the plans.
    parallel::in_pool(|| check(graph, store, root, wants, options))
}

fn check(graph: &Graph, store: &mut Store, root: Value, wants: &[Value], options: &Options) -> Result<Report, Failure> {
    let names: Vec<String> = wants.iter().map(|&v| graph.describe(v)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let function = graph.describe(root);
    for &v in wants.iter().chain([&root]) {
        let (name, spec) = (graph.describe(v), graph.spec(v));
        if spec.dtype != DType::F64 {
            return Err(Error::usage(format!("{name} is {spec}, must be f64 to be checked")).into());
        }
        // A change of one leaf would change the other.
        let shares = |other: &Value| *other != v && graph.leaf_id(*other) == graph.leaf_id(v);
        if let Some(other) = graph.leaf_id(v).and_then(|_| graph.all().find(shares)) {
            let other = graph.describe(other);
            return Err(Error::usage(format!("{name} and {other} share a buffer: give each its own")).into());
        }
    }
    let mut gradients = |wants: &[Value], repeat, prepare| {
        let request = Request { root: Some(root), wants: wants.to_vec(), repeat, prepare, ..Request::default() };
        let plan = Plan::new(graph, store, &request)?;
        store.ready()?;
        plan.run_all(store);
        let gradient = |&v: &Value| store.get(plan.grad(v)).to_f64();
        engine::Result::Ok(wants.iter().map(gradient).collect::<Vec<_>>())
    };
    let grads = gradients(wants, false, false)?;
    let others = [(wants, true, false), (wants, false, true)];
    let alone = wants.iter().map(|v| (std::slice::from_ref(v), false, false));
    for (wanted, repeat, prepare) in others.into_iter().chain(alone) {
        for (leaf, got) in wanted.iter().zip(gradients(wanted, repeat, prepare)?) {
            let i = wants.iter().position(|v| v == leaf).expect("a wanted leaf");
            let worst = first_difference(&got, &grads[i]);
            Wrong::refuse(&function, names[i], &names, Check::SameBits, worst, options.seed)?;
        }
    }
    let forward = Plan::new(graph, store, &Request { keep: vec![root], ..Request::default() })?;
    let ids: Vec<Id> = wants.iter().map(|&v| graph.leaf_id(v).expect("a plan has gradients of leaves only")).collect();
    let point: Vec<Vec<f64>> = ids.iter().map(|&id| store.get(id).to_f64()).collect();
    let claims: Vec<Claim> =
        names.iter().zip(&point).zip(&grads).map(|((name, at), gradient)| Claim { name, at, gradient }).collect();
    let value = |point: &[Vec<f64>]| {
        ids.iter().zip(point).for_each(|(&id, x)| store.get_mut(id).set_f64(x));
        forward.run_all(store);
        store.get(forward.value(root)).to_f64()[0]
    };
    let result = check_function(&function, &claims, value, options);
    ids.iter().zip(&point).for_each(|(&id, x)| store.get_mut(id).set_f64(x));
    result
}
