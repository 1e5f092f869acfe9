use crate::Id;
use engine::{Error, Op, Result, Spec};
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

/// How often something changes, hence how often what depends on it must be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// When the weights change: packing, casts, position tables.
    Update,
    /// With every batch: what depends on tokens only.
    Batch,
    /// With every step: what depends on latents or noise.
    Step,
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

/// Ops recorded on symbolic values; shapes are checked here, numbers come later.
///
/// ```
/// use autograd::gradcheck::Projection;
/// use autograd::{Graph, Phase, Store};
/// use engine::{DType, Device, Spec};
///
/// let mut store = Store::new(Device::Cpu);
/// let spec = Spec::new(DType::F32, &[4]);
/// let mut g = Graph::new();
/// g.scope("head");
/// let x = g.leaf("x", spec, Phase::Batch, store.alloc(spec));
/// let error = g.apply(Projection { seed: 1 }, &[x]).unwrap_err().to_string();
/// assert!(error.starts_with("projection in head: takes one input of f64 (recorded at "), "{error}");
/// ```
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

    /// Names the part of the model that the following ops belong to, for plans and errors.
    pub fn scope(&mut self, name: impl Into<String>) {
        self.scope = name.into();
    }

    /// An input: the buffer `id` of the store, which changes as often as `phase` says.
    pub fn leaf(&mut self, name: impl Into<String>, spec: Spec, phase: Phase, id: Id) -> Value {
        self.push(Info { name: name.into(), spec, origin: Origin::Leaf { id, phase } })
    }

    /// Records `op` on `ins` and returns its result.
    ///
    /// # Errors
    /// If the op refuses the shapes; the message names the op, the argument, the sizes, the scope and the caller.
    #[track_caller]
    pub fn apply(&mut self, op: impl Op + 'static, ins: &[Value]) -> Result<Value> {
        self.apply_shared(Arc::new(op), ins)
    }

    /// Like [`apply`](Self::apply) for an op that is shared.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    #[track_caller]
    pub fn apply_shared(&mut self, op: Arc<dyn Op>, ins: &[Value]) -> Result<Value> {
        let specs: Vec<Spec> = ins.iter().map(|&v| self.spec(v)).collect();
        let caller = Location::caller();
        let outputs = op.infer(&specs).map_err(|e| {
            let scope = if self.scope.is_empty() { String::new() } else { format!(" in {}", self.scope) };
            Error::usage(format!("{}{scope}: {e} (recorded at {}:{})", op.name(), caller.file(), caller.line()))
        })?;
        let node = self.nodes.len();
        let outs = outputs.len();
        let mut first = None;
        for (output, o) in outputs.into_iter().enumerate() {
            let value = self.push(Info { name: o.name.into(), spec: o.spec, origin: Origin::Node { node, output } });
            first.get_or_insert(value);
        }
        let out = first.expect("an op has a result");
        self.nodes.push(Node { op, ins: ins.to_vec(), out, outs, scope: self.scope.clone() });
        Ok(out)
    }

    /// Output `name` of the op whose result is `value`, e.g. the per-token `nll` beside a loss.
    ///
    /// # Panics
    /// If that op has no such output.
    pub fn output(&self, value: Value, name: &str) -> Value {
        let Origin::Node { node, .. } = self.info(value).origin else { panic!("a leaf has no output {name}") };
        let node = &self.nodes[node];
        (0..node.outs as u32)
            .map(|i| Value(node.out.0 + i))
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

    /// `layers.0 rmsnorm.rstd` or the leaf's name.
    /// Every value, in the order recorded.
    pub(crate) fn all(&self) -> impl Iterator<Item = Value> {
        (0..self.values.len() as u32).map(Value)
    }

    /// Where the numbers of a leaf are.
    pub(crate) fn leaf_id(&self, value: Value) -> Option<Id> {
        match self.info(value).origin {
            Origin::Leaf { id, .. } => Some(id),
            Origin::Node { .. } => None,
        }
    }

    pub(crate) fn describe(&self, value: Value) -> String {
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
