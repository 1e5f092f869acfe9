//! A graph made ready to run: the request, the instructions, and where their values are found.

use crate::build::Builder;
use crate::graph::{Graph, Phase, Value};
use crate::liveness;
use crate::run::Capture;
use crate::store::{Id, Store};
use engine::{Cost, Op, Result, Spec, Update, Want};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Whether work that does not depend on the latents is computed once per batch or again at every step, as the public
/// reference code does (departure 3). The numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Hoist {
    /// Once per batch.
    #[default]
    On,
    /// At every step.
    Off,
}

/// Whether ops get their inputs in the forms that they read fastest ([`Op::forms`]): memory for time, which pays where steps
/// are many for each change of the weights. The numbers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Prepare {
    /// Inputs as they are.
    #[default]
    Off,
    /// Prepared in the phase in which the input changes, for all later ones.
    On,
}

/// What a plan is to compute.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The number to differentiate: one element.
    pub root: Option<Value>,
    /// Leaves whose gradients are wanted.
    pub wants: Vec<Value>,
    /// Wanted leaves whose gradient is added to an existing buffer instead of overwriting one of the plan's own.
    pub accumulate: Vec<(Value, Id)>,
    /// Values to compute and keep for the caller to read.
    pub keep: Vec<Value>,
    /// Whether to hoist.
    pub hoist: Hoist,
    /// Whether to prepare.
    pub prepare: Prepare,
}

/// A buffer as an instruction sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ref {
    pub id: Id,
    pub spec: Spec,
}

/// What an instruction calls.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Forward(Arc<dyn Op>),
    Vjp(Arc<dyn Op>),
    /// Forward and VJP in one, for an op whose result's gradient is 1.
    Fused(Arc<dyn Op>),
    Update(Arc<dyn Update>),
    /// Form number so of the first input.
    Prepare(Arc<dyn Op>, usize),
}

/// One step of the replay. `R` is a place while planning and a buffer afterwards.
#[derive(Clone, Debug)]
pub(crate) struct Instr<R> {
    pub call: Call,
    pub scope: String,
    pub phase: Phase,
    pub wants: Vec<Want>,
    /// The inputs, then their prepared forms.
    pub ins: Vec<Option<R>>,
    /// Written by all but `Vjp`, which reads them.
    pub outs: Vec<Option<R>>,
    pub d_out: Option<R>,
    pub d_ins: Vec<Option<R>>,
    pub cost: Cost,
    pub scratch: usize,
}

/// A graph made ready to run. See the crate's documentation.
#[derive(Debug)]
pub struct Plan {
    pub(crate) instrs: Vec<Instr<Ref>>,
    pub(crate) key: u64,
    /// Bytes of the arena that this plan uses.
    pub(crate) arena_bytes: usize,
    kept: Vec<(Value, Id)>,
    grads: Vec<(Value, Id)>,
    /// The steps as a device has recorded them.
    pub(crate) captured: Mutex<Option<Capture>>,
}

impl Plan {
    /// Plans `request` on `graph`; slots come from the arena that all plans of the store share.
    ///
    /// # Errors
    /// If the root is not one number, a wanted value is not a leaf or does not reach the root, or an op on a wanted path
    /// has no gradient.
    pub fn new(graph: &Graph, store: &mut Store, request: &Request) -> Result<Self> {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let mut b = Builder::new(graph, store, request)?;
        b.forward();
        if request.root.is_some() {
            b.backward();
        }
        let Builder { mut instrs, temps, kept, grads, .. } = b;
        instrs.sort_by_key(|i| i.phase);
        let (instrs, arena_bytes) = liveness::assign(instrs, &temps, store);
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        let plan = Self { instrs, key, arena_bytes, kept, grads, captured: Mutex::default() };
        plan.reserve_scratch(store);
        Ok(plan)
    }

    /// Appends an update in place to a phase. It runs after everything that is there already.
    pub fn push_update(
        &mut self,
        store: &mut Store,
        phase: Phase,
        scope: &str,
        update: impl Update + 'static,
        ins: &[Id],
        state: &[Id],
    ) {
        let refs = |ids: &[Id]| -> Vec<Option<Ref>> {
            ids.iter().map(|&id| Some(Ref { id, spec: store.get(id).spec() })).collect()
        };
        let (ins, outs) = (refs(ins), refs(state));
        let specs = |refs: &[Option<Ref>]| -> Vec<Spec> { refs.iter().flatten().map(|r| r.spec).collect() };
        let cost = update.cost(&specs(&ins), &specs(&outs));
        let scratch = update.scratch(store.device(), &specs(&ins), &specs(&outs));
        let call = Call::Update(Arc::new(update));
        let at = self.instrs.partition_point(|i| i.phase <= phase);
        let (wants, scope) = (Vec::new(), scope.to_string());
        self.instrs
            .insert(at, Instr { call, scope, phase, wants, ins, outs, d_out: None, d_ins: Vec::new(), cost, scratch });
        self.captured = Mutex::default();
        self.reserve_scratch(store);
    }

    /// Where a kept value is found after a run.
    ///
    /// # Panics
    /// If the value was not asked for.
    pub fn value(&self, value: Value) -> Id {
        self.kept.iter().find(|(v, _)| *v == value).expect("a value that the plan keeps").1
    }

    /// Where the gradient of a wanted leaf is found after a run.
    ///
    /// # Panics
    /// If the gradient was not asked for.
    pub fn grad(&self, leaf: Value) -> Id {
        self.grads.iter().find(|(v, _)| *v == leaf).expect("a leaf whose gradient is wanted").1
    }

    pub(crate) fn owned(&self) -> impl Iterator<Item = Id> {
        self.kept.iter().chain(&self.grads).map(|(_, id)| *id)
    }

    fn reserve_scratch(&self, store: &mut Store) {
        let scratch = self.instrs.iter().map(|i| i.scratch).max().unwrap_or(0);
        store.grow_scratch(scratch);
    }
}
