use crate::Id;
use engine::{Error, Op, Result, Spec, op};
use std::panic::Location;
use std::sync::Arc;

/// A symbolic tensor of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

impl Value {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// How often a value changes, and so how often the values that depend on it must be computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Once per weight update: weights, and constants.
    #[default]
    Update,
    /// Once per batch: the data.
    Batch,
    /// At every step, while weights and data stay the same.
    Step,
}

impl Phase {
    /// All phases in their order.
    pub const ALL: [Self; 3] = [Self::Update, Self::Batch, Self::Step];
}

#[derive(Debug)]
pub(crate) struct Node {
    pub op: Arc<dyn Op>,
    pub ins: Vec<Value>,
    /// The first output; the residuals follow it.
    pub out: Value,
    pub outs: usize,
    pub scope: String,
}

impl Node {
    pub fn outs(&self) -> impl Iterator<Item = Value> + use<> {
        (self.out.0..self.out.0 + self.outs as u32).map(Value)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    Leaf { id: Id, phase: Phase },
    Node { node: usize, output: usize },
}

#[derive(Debug)]
pub(crate) struct Info {
    pub name: String,
    pub spec: Spec,
    pub origin: Origin,
}

/// Ops recorded on symbolic values. Recording checks shapes; a plan computes numbers.
#[derive(Debug, Default)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) values: Vec<Info>,
    scope: String,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the part of the graph that the following ops belong to, for plans and errors.
    pub fn scope(&mut self, name: impl Into<String>) {
        self.scope = name.into();
    }

    /// An input: the buffer `id` of the store, which changes as often as `phase` says.
    pub fn leaf(&mut self, name: impl Into<String>, phase: Phase, id: Id) -> Value {
        self.push(Info { name: name.into(), spec: id.spec, origin: Origin::Leaf { id, phase } })
    }

    /// Records `op` on `ins` and returns its result.
    ///
    /// # Errors
    /// If the op refuses the shapes, or has too many inputs ([`infer`](op::infer)); the message names the op, the argument, the
    /// sizes, the scope and the caller.
    #[track_caller]
    pub fn apply(&mut self, op: impl Op + 'static, ins: &[Value]) -> Result<Value> {
        self.apply_shared(Arc::new(op), ins)
    }

    /// Like [`apply`](Self::apply), for a shared op.
    #[track_caller]
    pub fn apply_shared(&mut self, op: Arc<dyn Op>, ins: &[Value]) -> Result<Value> {
        let specs: Vec<Spec> = ins.iter().map(|&v| self.spec(v)).collect();
        let caller = Location::caller();
        let outputs = op::infer(&*op, &specs).map_err(|e| {
            let scope = if self.scope.is_empty() { String::new() } else { format!(" in {}", self.scope) };
            Error::usage(format!("{}{scope}: {e} (recorded at {}:{})", op.name(), caller.file(), caller.line()))
        })?;
        let (node, outs, out) = (self.nodes.len(), outputs.len(), Value(self.values.len() as u32));
        for (output, o) in outputs.into_iter().enumerate() {
            self.push(Info { name: o.name.into(), spec: o.spec, origin: Origin::Node { node, output } });
        }
        self.nodes.push(Node { op, ins: ins.to_vec(), out, outs, scope: self.scope.clone() });
        Ok(out)
    }

    /// Output `name` of the op whose result is `value`, e.g. the per-token `nll` of a loss. The op must have it.
    pub fn output(&self, value: Value, name: &str) -> Value {
        let Origin::Node { node, .. } = self.info(value).origin else { panic!("a leaf has no output {name}") };
        let node = &self.nodes[node];
        node.outs()
            .find(|&v| self.info(v).name == name)
            .unwrap_or_else(|| panic!("{} has no output {name}", node.op.name()))
    }

    /// Type and shape of a value.
    pub fn spec(&self, value: Value) -> Spec {
        self.info(value).spec
    }

    pub(crate) fn info(&self, value: Value) -> &Info {
        &self.values[value.index()]
    }

    /// Whether `value` is `leaf` or was computed from it.
    #[cfg(feature = "ops")]
    pub(crate) fn depends(&self, value: Value, leaf: Value) -> bool {
        let mut on_leaf = vec![false; self.values.len()];
        on_leaf[leaf.index()] = true;
        for node in &self.nodes {
            let any = node.ins.iter().any(|v| on_leaf[v.index()]);
            node.outs().for_each(|v| on_leaf[v.index()] |= any);
        }
        on_leaf[value.index()]
    }

    /// Every value, in the order recorded.
    pub(crate) fn all(&self) -> impl Iterator<Item = Value> {
        (0..self.values.len() as u32).map(Value)
    }

    /// The buffer of a leaf.
    pub(crate) fn leaf_id(&self, value: Value) -> Option<Id> {
        match self.info(value).origin {
            Origin::Leaf { id, .. } => Some(id),
            Origin::Node { .. } => None,
        }
    }

    /// A value's name in messages: that of the leaf, or scope, op and output, e.g. `layers.0 rmsnorm.rstd`.
    pub fn describe(&self, value: Value) -> String {
        let info = self.info(value);
        match info.origin {
            Origin::Leaf { .. } => info.name.clone(),
            Origin::Node { node, .. } => {
                let node = &self.nodes[node];
                format!("{} {}.{}", node.scope, node.op.name(), info.name).trim_start().to_string()
            }
        }
    }

    fn push(&mut self, info: Info) -> Value {
        self.values.push(info);
        Value((self.values.len() - 1) as u32)
    }
}
