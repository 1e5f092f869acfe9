//! Random graphs of ops.

use crate::point::{Draw, check_all, draws};
use crate::small::{self, Small, bounds};
use autograd::gradcheck::{Failure, Options, Projection, Report, check_graph};
use autograd::{Graph, Phase, Store, Value};
use engine::case::Case;
use engine::{DType, Device, Op, Result};
use proptest::collection::vec;
use proptest::prelude::*;
use std::fmt::Write;
use std::sync::Arc;

/// Checks an op in 256 random graphs, together with sums, products, hyperbolic tangents and random linear maps of this
/// crate's own. It compares the gradients of random subsets of leaves with central differences, and requires the same
/// bits for each leaf alone, without hoisting and with prepared forms ([`check_graph`]).
///
/// # Errors
/// The wrong gradient and the smallest graph that shows it.
pub fn random_graphs(cases: impl Strategy<Value = Case>) -> std::result::Result<Vec<Report>, String> {
    check(cases.prop_map(|case| {
        let others = small::cases(&case.ins[0].dims);
        (case, others)
    }))
}

/// Like [`random_graphs`], together with ops of your choice. Those without a gradient are left out.
///
/// # Errors
/// As [`random_graphs`].
pub fn random_graphs_with(
    cases: impl Strategy<Value = Case>,
    others: impl Strategy<Value = Vec<Case>>,
) -> std::result::Result<Vec<Report>, String> {
    check((cases, others))
}

fn check(ops: impl Strategy<Value = (Case, Vec<Case>)>) -> std::result::Result<Vec<Report>, String> {
    let listing = |recipe: &Recipe| recipe.build().map_or_else(|e| e.to_string(), |built| built.listing);
    check_all(recipes(ops), Recipe::check, |recipe| format!("smallest graph:{}", listing(recipe)))
}

/// One op of a graph: its case, and the source of each input.
type Step = (u16, [u8; 4]);

/// How to build a graph. It shrinks towards fewer ops, and at last to the tested op on its own leaves.
#[derive(Clone, Debug)]
struct Recipe {
    tested: Case,
    /// Cases that have a gradient.
    others: Vec<Case>,
    draw: Draw,
    steps: Vec<Step>,
    /// Which leaves are wanted; the pattern repeats from the first leaf on.
    wants: Vec<bool>,
}

/// Recipes of up to seven ops.
fn recipes(ops: impl Strategy<Value = (Case, Vec<Case>)>) -> impl Strategy<Value = Recipe> {
    // Larger numbers multiply along the graph, until rounding in the gradient exceeds that of the differences.
    let draws = draws(1);
    (vec(any::<Step>(), 1..8), vec(any::<bool>(), 16), ops, draws).prop_map(|(steps, wants, (tested, others), draw)| {
        let others = others.into_iter().filter(|case| case.differentiable().next().is_some()).collect();
        Recipe { tested, others, draw, steps, wants }
    })
}

/// A graph with numbers for its leaves.
struct Built {
    graph: Graph,
    store: Store,
    /// A scalar: the sum of random projections of all results that no op reads.
    root: Value,
    /// The leaves that have a gradient.
    leaves: Vec<Value>,
    /// The ops, one per line, with the values that they read.
    listing: String,
}

impl Recipe {
    /// Records the graph. An input that has a gradient is an earlier value of its shape, a projection of an earlier
    /// value onto its shape, or a new leaf; other inputs are leaves. A value is first mapped into the input's bounds,
    /// if it has any.
    fn build(&self) -> Result<Built> {
        let mut g = Graph::new();
        let mut store = Store::new(Device::CPU);
        let (mut pool, mut leaves, mut ends): (Vec<Value>, Vec<Value>, Vec<Value>) = Default::default();
        let mut listing = String::new();
        let mut inputs = 0;
        let mut ops = 0;
        let mut apply = |g: &mut Graph, op: Arc<dyn Op>, ins: &[Value]| {
            ops += 1;
            // Numbered, so that a failure names a line of the listing.
            g.scope(format!("#{ops}"));
            let out = g.apply_shared(op.clone(), ins)?;
            let named = |v: Value| format!("{} {}", g.describe(v), g.spec(v));
            let ins: Vec<String> = ins.iter().map(|&v| named(v)).collect();
            write!(listing, "\n  {} = {}({})", named(out), op.name(), ins.join(", ")).expect("a string");
            Result::Ok(out)
        };
        for &(op, wires) in &self.steps {
            // One op in four is the tested op.
            let (tested, pick) = (op % 4 == 0 || self.others.is_empty(), usize::from(op / 4));
            let case = if tested { &self.tested } else { &self.others[pick % self.others.len()] };
            let mut ins = Vec::new();
            for (i, input) in case.ins.iter().enumerate() {
                let wire = usize::from(wires[i % 4]);
                let differentiable = case.op.differentiable(i);
                let spec = input.spec(DType::F64);
                let bounds = bounds(&input.fill);
                let fits = |v: &Value| differentiable && bounds.is_none() && g.spec(*v) == spec;
                let fitting: Vec<Value> = pool.iter().copied().filter(fits).collect();
                // Choices shrink to the first one: a leaf.
                let choices = 1 + fitting.len() + usize::from(differentiable && !pool.is_empty());
                let value = match wire % choices {
                    0 => {
                        let phase = Phase::ALL[2 - wire / 8 % 3];
                        let id = store.insert(self.draw.buffer(inputs, input));
                        let leaf = g.leaf(format!("{}{inputs}", case.op.arguments()[i]), phase, id);
                        inputs += 1;
                        if differentiable {
                            pool.push(leaf);
                            leaves.push(leaf);
                        }
                        leaf
                    }
                    k if k <= fitting.len() => fitting[k - 1],
                    _ => {
                        let from = pool[wire / choices % pool.len()];
                        ends.retain(|&v| v != from);
                        let projection = Projection { seed: wire as u64, shape: spec.shape };
                        let value = apply(&mut g, Arc::new(projection), &[from])?;
                        match bounds {
                            Some(bounds) => apply(&mut g, Arc::new(Small::Into(bounds)), &[value])?,
                            None => value,
                        }
                    }
                };
                ends.retain(|&v| v != value);
                ins.push(value);
            }
            let out = apply(&mut g, case.op.clone(), &ins)?;
            pool.push(out);
            ends.push(out);
        }
        let mut root: Option<Value> = None;
        for (&end, seed) in ends.iter().zip(0..) {
            let number = apply(&mut g, Arc::new(Projection::new(seed)), &[end])?;
            root = Some(match root {
                Some(root) => apply(&mut g, Arc::new(Small::Add), &[root, number])?,
                None => number,
            });
        }
        Ok(Built { graph: g, store, root: root.expect("a recipe has an op"), leaves, listing })
    }

    /// Builds the graph and checks the gradients of some of its leaves.
    fn check(&self) -> std::result::Result<Report, Failure> {
        let Built { graph, mut store, root, leaves, .. } = self.build()?;
        let wanted = leaves.iter().zip(self.wants.iter().cycle()).filter(|(_, wanted)| **wanted);
        let mut wants: Vec<Value> = wanted.map(|(&leaf, _)| leaf).collect();
        if wants.is_empty() {
            wants.push(leaves[0]);
        }
        let options = Options { seed: self.draw.seed, entrywise: 6 };
        check_graph(&graph, &mut store, root, &wants, &options)
    }
}
