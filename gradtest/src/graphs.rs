//! Random graphs of ops.

use crate::property::Cases;
use crate::strategies::{Point, points, subsets};
use autograd::gradcheck::{Failure, Options, Projection, Report, check_graph};
use autograd::{Graph, Phase, Store, Value};
use engine::{DType, Device, Op, Result};
use kernels::add::Add;
use kernels::case::Input;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fmt::Write;
use std::sync::Arc;

/// One op of a graph: which, and where each input comes from.
#[derive(Clone, Copy, Debug)]
struct Step {
    op: u16,
    wires: [u8; 4],
}

/// How to build a graph from any palette of ops. Shrinks towards fewer ops, the palette's first, each on leaves of its own.
#[derive(Clone, Debug)]
pub struct Recipe {
    point: Point,
    steps: Vec<Step>,
    wants: Vec<bool>,
}

/// Subsets of leaves repeat after so many.
const LEAVES: usize = 16;

/// Recipes of up to seven ops.
pub fn recipes() -> impl Strategy<Value = Recipe> {
    let step = (any::<u16>(), any::<[u8; 4]>()).prop_map(|(op, wires)| Step { op, wires });
    (vec(step, 1..8), subsets(LEAVES), points()).prop_map(|(steps, wants, point)| Recipe { point, steps, wants })
}

/// A graph with numbers in its leaves.
#[derive(Debug)]
pub struct Built {
    /// The graph.
    pub graph: Graph,
    /// The numbers.
    pub store: Store,
    /// One number: random projections of all results that nothing else reads, added up.
    pub root: Value,
    /// The leaves that have a gradient.
    pub leaves: Vec<Value>,
    /// The ops, a line each, with the numbers of the values that they read.
    pub listing: String,
}

struct Kind {
    op: Arc<dyn Op>,
    ins: Vec<Input>,
}

impl Recipe {
    /// Records the graph with the ops of `palette`. An input that has a gradient is wired to an earlier value of its shape, if
    /// there is one, or is a new leaf; other inputs are leaves.
    ///
    /// # Errors
    /// If an op refuses what its own cases say it takes.
    pub fn build(&self, palette: &[Cases]) -> Result<Built> {
        let kinds = |cases: &Cases| -> Vec<Kind> {
            let kinds = cases(&self.point.sizes).into_iter().map(|case| Kind { op: Arc::from(case.op), ins: case.ins });
            kinds.filter(|kind| (0..kind.ins.len()).any(|i| kind.op.differentiable(i))).collect()
        };
        let first: Vec<Kind> = palette.iter().take(1).flat_map(kinds).collect();
        let all: Vec<Kind> = palette.iter().flat_map(kinds).collect();
        let (mut g, mut store) = (Graph::new(), Store::new(Device::Cpu));
        let (mut pool, mut leaves, mut ends): (Vec<Value>, Vec<Value>, Vec<Value>) = Default::default();
        let mut listing = String::new();
        let mut inputs = 0;
        for step in &self.steps {
            // One op in four is the palette's first: it is what the graphs are made for.
            let (quarter, pick) = (step.op % 4 == 0, usize::from(step.op / 4));
            let kinds = if quarter && !first.is_empty() { &first } else { &all };
            let kind = &kinds[pick % kinds.len()];
            let mut ins = Vec::new();
            for (i, input) in kind.ins.iter().enumerate() {
                let wire = usize::from(step.wires[i % 4]);
                let differentiable = kind.op.differentiable(i);
                let spec = input.spec(DType::F64);
                let fitting: Vec<Value> =
                    pool.iter().copied().filter(|&v| differentiable && g.spec(v) == spec).collect();
                if let Some(&value) = fitting.get((wire % (fitting.len() + 1)).wrapping_sub(1)) {
                    ends.retain(|&v| v != value);
                    ins.push(value);
                    continue;
                }
                let phase = [Phase::Step, Phase::Batch, Phase::Update][wire / 8 % 3];
                let id = store.insert(self.point.buffer(inputs, input));
                let leaf = g.leaf(format!("{}{inputs}", kind.op.arguments()[i]), spec, phase, id);
                inputs += 1;
                if differentiable {
                    pool.push(leaf);
                    leaves.push(leaf);
                }
                ins.push(leaf);
            }
            let out = g.apply_shared(kind.op.clone(), &ins)?;
            let specs: Vec<String> = ins.iter().map(|&v| format!("{v:?} {}", g.spec(v))).collect();
            let line = format!("{out:?} {} = {}({})", g.spec(out), kind.op.name(), specs.join(", "));
            write!(listing, "\n  {line}").expect("a string");
            pool.push(out);
            ends.push(out);
        }
        let mut root: Option<Value> = None;
        for (&end, seed) in ends.iter().zip(0..) {
            let number = g.apply(Projection { seed }, &[end])?;
            root = Some(match root {
                Some(root) => g.apply(Add, &[root, number])?,
                None => number,
            });
        }
        Ok(Built { graph: g, store, root: root.expect("a recipe has an op"), leaves, listing })
    }

    /// Builds the graph and checks the gradients of some of its leaves.
    ///
    /// # Errors
    /// Those of [`build`](Self::build) and [`check_graph`].
    pub fn check(&self, palette: &[Cases]) -> std::result::Result<Report, Failure> {
        let Built { graph, mut store, root, leaves, .. } = self.build(palette)?;
        let mut wants: Vec<Value> =
            leaves.iter().zip(self.wants.iter().cycle()).filter(|(_, wanted)| **wanted).map(|(&v, _)| v).collect();
        if wants.is_empty() {
            wants.push(leaves[0]);
        }
        let options = Options { seed: self.point.seed, entrywise: 6, ..Options::default() };
        check_graph(&graph, &mut store, root, &wants, &options)
    }
}
