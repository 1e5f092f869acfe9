//! Random graphs of ops.

use crate::point::{Draw, check_all, code, draws, test};
use crate::small::{self, Small, bounds};
use autograd::gradcheck::{Failure, Options, Projection, Report, check_graph};
use autograd::{Graph, Phase, Store, Value};
use engine::case::Case;
use engine::{Buffer, DType, Device, Op, Result};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

/// Checks an op in 256 random graphs, together with sums, products, hyperbolic tangents and random linear maps of this
/// crate's own. It compares the gradients of random subsets of leaves with central differences, and requires the same
/// bits for each leaf alone, without hoisting and with prepared forms ([`check_graph`]).
///
/// # Errors
/// The wrong gradient, the smallest graph that shows it, and a regression test.
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
    check_all(recipes(ops), Recipe::check, Recipe::show)
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
    recording: Recording,
    /// A scalar: the sum of random projections of all results that no op reads.
    root: Value,
    /// The leaves that have a gradient.
    leaves: Vec<Value>,
}

/// A graph while it is recorded, as text and as Rust code.
struct Recording {
    graph: Graph,
    store: Store,
    /// Leaves and results, in order. In the code they have the names `v0`, `v1`, ….
    values: Vec<Value>,
    ops: usize,
    /// The ops, one per line, with the values that they read.
    listing: String,
    code: String,
}

impl Recording {
    fn new() -> Self {
        let (graph, store) = (Graph::new(), Store::new(Device::CPU));
        Self { graph, store, values: Vec::new(), ops: 0, listing: String::new(), code: String::new() }
    }

    fn leaf(&mut self, name: String, phase: Phase, buffer: Buffer) -> Value {
        let made = format!("g.leaf({name:?}, Phase::{phase:?}, store.insert({}))", code(&buffer));
        let id = self.store.insert(buffer);
        let leaf = self.graph.leaf(name, phase, id);
        self.push(leaf, &made)
    }

    fn apply(&mut self, op: Arc<dyn Op>, ins: &[Value]) -> Result<Value> {
        let made = format!("g.apply({op:?}, &[{}]).unwrap()", self.names(ins));
        self.apply_as(op, &made, ins)
    }

    fn project(&mut self, projection: Projection, x: Value) -> Result<Value> {
        let Projection { seed, shape } = projection;
        let made = format!(
            "g.apply(Projection {{ seed: {seed}, shape: Shape::new(&{shape}) }}, &[{}]).unwrap()",
            self.names(&[x])
        );
        self.apply_as(Arc::new(projection), &made, &[x])
    }

    fn apply_as(&mut self, op: Arc<dyn Op>, made: &str, ins: &[Value]) -> Result<Value> {
        let g = &mut self.graph;
        self.ops += 1;
        // Numbered, so that a failure names a line of the listing.
        g.scope(format!("#{}", self.ops));
        let out = g.apply_shared(op.clone(), ins)?;
        let named = |v: Value| format!("{} {}", g.describe(v), g.spec(v));
        let ins: Vec<String> = ins.iter().map(|&v| named(v)).collect();
        self.listing += &format!("\n  {} = {}({})", named(out), op.name(), ins.join(", "));
        Ok(self.push(out, made))
    }

    fn push(&mut self, value: Value, made: &str) -> Value {
        self.values.push(value);
        self.code += &format!("    let {} = {made};\n", self.names(&[value]));
        value
    }

    /// Their names in the code.
    fn names(&self, values: &[Value]) -> String {
        let place = |value: &Value| self.values.iter().position(|known| known == value).expect("recorded before");
        values.iter().map(|value| format!("v{}", place(value))).collect::<Vec<_>>().join(", ")
    }
}

impl Recipe {
    /// Records the graph. An input that has a gradient is an earlier value of its shape, a projection of an earlier
    /// value onto its shape, or a new leaf; other inputs are leaves. A value is first mapped into the input's bounds,
    /// if it has any.
    fn build(&self) -> Result<Built> {
        let mut r = Recording::new();
        let (mut pool, mut leaves, mut ends): (Vec<Value>, Vec<Value>, Vec<Value>) = Default::default();
        let mut inputs = 0;
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
                let fits = |v: &Value| differentiable && bounds.is_none() && r.graph.spec(*v) == spec;
                let fitting: Vec<Value> = pool.iter().copied().filter(fits).collect();
                // Choices shrink to the first one: a leaf.
                let choices = 1 + fitting.len() + usize::from(differentiable && !pool.is_empty());
                let value = match wire % choices {
                    0 => {
                        let phase = Phase::ALL[2 - wire / 8 % 3];
                        let name = format!("{}{inputs}", case.op.arguments()[i]);
                        let leaf = r.leaf(name, phase, self.draw.buffer(inputs, input));
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
                        let value = r.project(Projection { seed: wire as u64, shape: spec.shape }, from)?;
                        match bounds {
                            Some(bounds) => r.apply(Arc::new(Small::Into(bounds)), &[value])?,
                            None => value,
                        }
                    }
                };
                ends.retain(|&v| v != value);
                ins.push(value);
            }
            let out = r.apply(case.op.clone(), &ins)?;
            pool.push(out);
            ends.push(out);
        }
        let mut root: Option<Value> = None;
        for (&end, seed) in ends.iter().zip(0..) {
            let number = r.project(Projection::new(seed), end)?;
            root = Some(match root {
                Some(root) => r.apply(Arc::new(Small::Add), &[root, number])?,
                None => number,
            });
        }
        Ok(Built { recording: r, root: root.expect("a recipe has an op"), leaves })
    }

    /// Some of the leaves, at least one.
    fn wanted(&self, leaves: &[Value]) -> Vec<Value> {
        let wanted = leaves.iter().zip(self.wants.iter().cycle()).filter(|(_, wanted)| **wanted);
        let wanted: Vec<Value> = wanted.map(|(&leaf, _)| leaf).collect();
        if wanted.is_empty() { leaves[..1].to_vec() } else { wanted }
    }

    fn options(&self) -> Options {
        Options { seed: self.draw.seed, entrywise: 6 }
    }

    /// Builds the graph and checks the gradients of some of its leaves.
    fn check(&self) -> std::result::Result<Report, Failure> {
        let Built { recording: Recording { graph, mut store, .. }, root, leaves } = self.build()?;
        check_graph(&graph, &mut store, root, &self.wanted(&leaves), &self.options())
    }

    /// The graph, and a regression test that records it.
    fn show(&self) -> String {
        let Built { recording, root, leaves } = match self.build() {
            Ok(built) => built,
            Err(refused) => return format!("smallest graph: {refused}"),
        };
        let (root, wanted) = (recording.names(&[root]), recording.names(&self.wanted(&leaves)));
        let call = format!("check_graph(&g, &mut store, {root}, &[{wanted}], &{:?})", self.options());
        let begin =
            "    use gradtest::graph::*;\n    let (mut g, mut store) = (Graph::new(), Store::new(Device::CPU));\n";
        let name = format!("{}_in_its_smallest_graph", self.tested.op.name());
        let Recording { listing, code, .. } = recording;
        format!("smallest graph:{listing}\nto repeat it:\n{}", test(&name, &(begin.to_string() + &code), &call))
    }
}
