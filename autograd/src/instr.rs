//! The instructions of a plan. They first work on places, and on buffers once every value has its buffer.

use crate::graph::Phase;
use crate::store::Id;
use engine::{Cost, Op, Spec, Update, Want};
use std::sync::Arc;

/// The place of a value while planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A separate buffer.
    Fixed(Id),
    /// A slot of the arena, not yet chosen: the value's number among all such values, and its type and shape.
    Temp(usize, Spec),
}

impl Place {
    /// The same place with another shape.
    pub fn with_spec(self, spec: Spec) -> Self {
        match self {
            Self::Fixed(id) => Self::Fixed(Id { spec, ..id }),
            Self::Temp(number, _) => Self::Temp(number, spec),
        }
    }
}

/// What an instruction calls.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Forward(Arc<dyn Op>),
    Vjp(Arc<dyn Op>),
    /// Fused forward and VJP, for an op whose result's gradient is 1.
    Fused(Arc<dyn Op>),
    Update(Arc<dyn Update>),
    /// Makes the form with this number for the first input.
    Prepare(Arc<dyn Op>, usize),
}

impl Call {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forward(op) | Self::Vjp(op) | Self::Fused(op) | Self::Prepare(op, _) => op.name(),
            Self::Update(update) => update.name(),
        }
    }
}

/// One step of the replay. `P` is [`Place`] while planning and [`Id`] afterwards.
#[derive(Clone, Debug)]
pub(crate) struct Instr<P> {
    pub call: Call,
    pub scope: String,
    pub phase: Phase,
    pub wants: Vec<Want>,
    /// The inputs, then their prepared forms.
    pub ins: Vec<Option<P>>,
    /// The outputs, or an update's state. `Vjp` reads them, all others write them.
    pub outs: Vec<Option<P>>,
    /// The gradient of the first output, which `Vjp` reads.
    pub d_out: Option<P>,
    pub d_ins: Vec<Option<P>>,
    pub cost: Cost,
    /// Bytes of scratch memory.
    pub scratch: usize,
}

impl<P> Instr<P> {
    /// An instruction without operands.
    pub fn new(call: Call, scope: &str, phase: Phase) -> Self {
        Self {
            call,
            scope: scope.to_string(),
            phase,
            wants: Vec::new(),
            ins: Vec::new(),
            outs: Vec::new(),
            d_out: None,
            d_ins: Vec::new(),
            cost: Cost::default(),
            scratch: 0,
        }
    }

    /// All operands.
    pub fn operands(&self) -> impl Iterator<Item = &P> {
        self.ins.iter().chain(&self.outs).chain([&self.d_out]).chain(&self.d_ins).flatten()
    }

    /// The operands that it reads: the inputs, or the result's gradient in a backward pass.
    pub fn read(&self) -> impl Iterator<Item = &P> {
        let backward = matches!(self.call, Call::Vjp(_));
        let ins = if backward { std::slice::from_ref(&self.d_out) } else { &self.ins };
        ins.iter().flatten()
    }

    /// What it writes.
    pub fn written(&self) -> impl Iterator<Item = &P> {
        let backward = matches!(self.call, Call::Vjp(_));
        let outs = if backward { &[][..] } else { &self.outs };
        outs.iter().chain(&self.d_ins).flatten()
    }

    /// Scope, op and pass, e.g. `layers.0 linear backward`.
    pub fn label(&self) -> String {
        let pass = match self.call {
            Call::Forward(_) => "",
            Call::Vjp(_) => " backward",
            Call::Fused(_) => " forward+backward",
            Call::Update(_) => " in place",
            Call::Prepare(..) => " prepared",
        };
        format!("{} {}{pass}", self.scope, self.call.name()).trim_start().to_string()
    }

    /// The same instruction on other operands.
    pub fn map<Q>(self, f: impl Fn(P) -> Q) -> Instr<Q> {
        let all = |list: Vec<Option<P>>| list.into_iter().map(|p| p.map(&f)).collect();
        Instr {
            call: self.call,
            scope: self.scope,
            phase: self.phase,
            wants: self.wants,
            ins: all(self.ins),
            outs: all(self.outs),
            d_out: self.d_out.map(&f),
            d_ins: all(self.d_ins),
            cost: self.cost,
            scratch: self.scratch,
        }
    }
}
