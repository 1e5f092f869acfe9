//! What is known about the values of a graph before instructions are made.

use super::Builder;
use crate::graph::{Graph, Node, Origin, Phase, Value};
use crate::instr::Place;
use crate::plan::Request;
use crate::store::Store;
use engine::{Buffer, Error, Result};

/// For every value, the value whose buffer it is in: itself, or the one that it is a reshaped copy of. The root and kept values
/// have a buffer of their own. An op that reads one buffer in two shapes gets a copy.
pub fn owners(graph: &Graph, request: &Request) -> Vec<Value> {
    let own: Vec<Value> = request.keep.iter().chain(&request.root).copied().collect();
    let mut copied: Vec<bool> = graph.all().map(|v| own.contains(&v)).collect();
    loop {
        let mut owners: Vec<Value> = graph.all().collect();
        for node in graph.nodes.iter().filter(|node| node.op.only_reshapes() && !copied[node.out.index()]) {
            owners[node.out.index()] = owners[node.ins[0].index()];
        }
        let clash = graph.nodes.iter().filter(|node| owners[node.out.index()] == node.out).find_map(|node| {
            let other =
                |v: &Value, w: &Value| owners[v.index()] == owners[w.index()] && graph.spec(*v) != graph.spec(*w);
            node.ins.iter().find(|&&v| owners[v.index()] != v && node.ins.iter().any(|w| other(&v, w)))
        });
        let Some(v) = clash else { return owners };
        copied[v.index()] = true;
    }
}

/// Facts about a value while planning.
#[derive(Clone, Copy, Default)]
pub struct Known {
    pub phase: Phase,
    /// Its place, once computed.
    pub place: Option<Place>,
    /// The root or a kept value depends on it.
    pub needed: bool,
    /// The root depends on it.
    pub to_root: bool,
    /// It depends on a wanted leaf.
    pub from_want: bool,
    /// Its gradient is exactly 1: it is the root, or all ops between it and the root pass the gradient through.
    pub one: bool,
    /// The place of its gradient, once something has contributed to it.
    pub grad: Option<Place>,
}

impl Builder<'_> {
    /// The values on which the root and the kept values depend.
    pub fn mark_needed(&mut self, store: &mut Store) -> Result<()> {
        let g = self.graph;
        if let Some(root) = self.request.root {
            let spec = g.spec(root);
            let result = matches!(g.info(root).origin, Origin::Node { output: 0, .. });
            if spec.shape.numel() != 1 || !spec.dtype.is_float() || !result {
                let name = g.describe(root);
                return Err(Error::usage(format!(
                    "the root {name} is {spec}, must be one number: the result of an op"
                )));
            }
            self.one = Some(store.insert(Buffer::from_f64(spec.dtype, &[1], &[1.0])));
            self.of_mut(root).to_root = true;
        }
        for &v in self.request.keep.iter().chain(&self.request.root) {
            self.of_mut(v).needed = true;
        }
        for node in g.nodes.iter().rev() {
            let needed = node.outs().any(|v| self.of(v).needed);
            let to_root = node.outs().any(|v| self.of(v).to_root);
            for &v in &node.ins {
                self.of_mut(v).needed |= needed;
                self.of_mut(v).to_root |= to_root;
            }
        }
        Ok(())
    }

    /// The wanted leaves and the buffers of their gradients.
    pub fn mark_wanted(&mut self, store: &mut Store) -> Result<()> {
        let accumulate = self.request.accumulate.iter().map(|&(v, id)| (v, Some(id)));
        for (leaf, id) in self.request.wants.iter().map(|&v| (v, None)).chain(accumulate) {
            let (name, spec) = (self.graph.describe(leaf), self.graph.spec(leaf));
            if !self.is_leaf(leaf) || !spec.dtype.is_float() {
                return Err(Error::usage(format!("a gradient is wanted for {name}, which is not a leaf of floats")));
            }
            if !self.of(leaf).to_root {
                let message = format!("a gradient is wanted for {name}, on which the root does not depend");
                return Err(Error::usage(message));
            }
            self.of_mut(leaf).from_want = true;
            self.draft.grads.push((leaf, id.unwrap_or_else(|| store.alloc(spec))));
        }
        Ok(())
    }

    /// When each value changes, and whether it depends on a wanted leaf.
    pub fn mark_phases(&mut self) -> Result<()> {
        for v in self.graph.all() {
            match self.graph.info(v).origin {
                Origin::Leaf { id, phase } => {
                    self.of_mut(v).phase = phase;
                    self.of_mut(v).place = Some(Place::Fixed(id));
                }
                Origin::Node { .. } if self.owner(v) != v => {}
                Origin::Node { node, output } => {
                    let node = &self.graph.nodes[node];
                    if output == 0 {
                        self.check_path(node)?;
                    }
                    let phase = node.ins.iter().map(|&v| self.of(v).phase).max().unwrap_or(Phase::Update);
                    let repeats = self.request.repeat && phase == Phase::Batch;
                    self.of_mut(v).phase = if repeats { Phase::Step } else { phase };
                    self.of_mut(v).from_want = node.ins.iter().any(|&v| self.of(v).from_want);
                }
            }
        }
        Ok(())
    }

    /// A gradient must not stop silently, neither at an input without a gradient nor at a residual.
    fn check_path(&self, node: &Node) -> Result<()> {
        if !self.of(node.out).to_root {
            return Ok(());
        }
        let reader = format!("{} {}", node.scope, node.op.name());
        let reader = reader.trim_start();
        for (i, &v) in node.ins.iter().enumerate().filter(|&(_, &v)| self.of(v).from_want) {
            let what = self.graph.describe(v);
            let problem = if !node.op.differentiable(i) {
                format!("{reader}: the op has no gradient for {} ({what})", node.op.arguments()[i])
            } else if matches!(self.graph.info(self.owner(v)).origin, Origin::Node { output: 1.., .. }) {
                format!("{what}: this is a residual, and {reader} reads it")
            } else {
                continue;
            };
            return Err(Error::usage(format!("the wanted gradient stops at {problem}")));
        }
        Ok(())
    }

    /// The values whose gradient is exactly 1: the root, and values whose ops up to the root all pass the gradient
    /// through and have no other reader.
    pub fn mark_ones(&mut self) {
        let g = self.graph;
        let Some(root) = self.request.root else { return };
        self.of_mut(root).one = true;
        let mut uses = vec![0; g.values.len()];
        for node in self.nodes().filter(|n| self.of(n.out).to_root) {
            node.ins.iter().for_each(|&v| uses[self.owner(v).index()] += 1);
        }
        for node in self.nodes().rev().collect::<Vec<_>>() {
            let one = self.of(node.out).one;
            for (i, &v) in node.ins.iter().enumerate().filter(|_| one) {
                let inner = matches!(g.info(self.owner(v)).origin, Origin::Node { output: 0, .. });
                let uses = uses[self.owner(v).index()];
                self.of_mut(v).one |= inner && self.passes_through(node, i) && uses == 1;
            }
        }
    }

    /// Whether the gradient of input `i` is that of the result.
    pub fn passes_through(&self, node: &Node, i: usize) -> bool {
        node.op.passes_through(i) && self.graph.spec(node.ins[i]) == self.graph.spec(node.out)
    }
}
