use crate::graph::Value;
use crate::store::Id;

/// Whether work that depends on the batch alone runs once per batch or again at every step. The numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Hoist {
    /// Once per batch.
    #[default]
    On,
    /// At every step: what tests compare with.
    Off,
}

/// Whether ops get their inputs in the forms that they read fastest ([`Op::forms`](engine::Op::forms)). That takes memory
/// and pays where many steps follow each change of the weights. The numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Prepare {
    /// Ops read the inputs themselves.
    #[default]
    Off,
    /// The phase in which an input changes makes its forms, for all later phases.
    On,
}

/// What a plan is to compute.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The number to differentiate: one element.
    pub root: Option<Value>,
    /// Leaves whose gradients are wanted.
    pub wants: Vec<Value>,
    /// Leaves whose gradients are added to existing buffers, instead of overwriting buffers of the plan's own.
    pub accumulate: Vec<(Value, Id)>,
    /// Values to compute and keep for the caller to read.
    pub keep: Vec<Value>,
    /// Whether to hoist.
    pub hoist: Hoist,
    /// Whether to prepare.
    pub prepare: Prepare,
}
