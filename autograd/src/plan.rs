//! A graph prepared to run: the instructions, and the places of their values.

use crate::build::{Draft, draft};
use crate::graph::{Graph, Phase, Value};
use crate::instr::{Call, Instr};
use crate::liveness;
use crate::store::{Id, Store};
use engine::cuda::Captured;
use engine::{Cost, Pass, Result, Spec, Update};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What a plan should compute.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The number to differentiate: one element.
    pub root: Option<Value>,
    /// Leaves whose gradients are wanted.
    pub wants: Vec<Value>,
    /// Leaves whose gradients are added to existing buffers. Other gradients overwrite buffers of the plan.
    pub accumulate: Vec<(Value, Id)>,
    /// Values to compute and keep for the caller to read.
    pub keep: Vec<Value>,
    /// Whether ops that depend only on the batch run at every step instead of once per batch. The numbers are the same;
    /// tests compare them.
    pub repeat: bool,
    /// Whether ops get their inputs in the forms that they read fastest ([`Op::forms`](engine::Op::forms)), made in the
    /// phase in which an input changes. The forms take memory, and pay if many steps follow each change of the weights.
    /// The numbers are the same.
    pub prepare: bool,
}

/// A graph prepared to run. See the crate's documentation.
#[derive(Debug)]
pub struct Plan {
    /// By phase.
    pub(crate) instrs: Vec<Instr<Id>>,
    /// Identifies the plan among those of a store.
    pub(crate) key: u64,
    /// Bytes of the arena that this plan uses; kept values and gradients are not included.
    pub arena_bytes: usize,
    kept: Vec<(Value, Id)>,
    pub(crate) grads: Vec<(Value, Id)>,
    /// The leaves that the plan reads: names and buffers.
    pub(crate) leaves: Vec<(String, Id)>,
    /// A device's recording of the steps.
    pub(crate) capture: Mutex<Option<Capture>>,
}

/// The steps of a plan on a device, recorded.
#[derive(Debug)]
pub(crate) struct Capture {
    /// A hash of the buffers' addresses.
    pub layout: u64,
    /// The recording; none before the second run.
    pub work: Option<Box<dyn Captured>>,
}

impl Plan {
    /// Plans `request` on `graph`; all plans of the store share one arena of slots.
    ///
    /// # Errors
    /// If the root is not one number, a wanted value is not a leaf or does not reach the root, or an op on a wanted path
    /// has no gradient.
    pub fn new(graph: &Graph, store: &mut Store, request: &Request) -> Result<Self> {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let Draft { mut instrs, temps, kept, grads } = draft(graph, store, request)?;
        instrs.sort_by_key(|i| i.phase);
        let (instrs, arena_bytes) = liveness::assign(instrs, &temps, store);
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        let read = |id: &Id| instrs.iter().any(|i| i.ins.iter().flatten().any(|read| read.number == id.number));
        let leaves = graph.all().filter_map(|v| Some((v, graph.leaf_id(v)?))).filter(|(_, id)| read(id));
        let leaves = leaves.map(|(v, id)| (graph.describe(v), id)).collect();
        let plan = Self { instrs, key, arena_bytes, kept, grads, leaves, capture: Mutex::default() };
        plan.reserve_scratch(store);
        Ok(plan)
    }

    /// Appends an in-place update to a phase. It runs after all earlier instructions of the phase.
    ///
    /// Most updates are optimisers. This learns to tell even from odd, with the bits of a number as inputs:
    ///
    /// ```
    /// use autograd::{Graph, Phase, Plan, Request, Store};
    /// use engine::{Buffer, DType, Device, Spec};
    /// use kernels::adamw::{AdamW, Rule, SquaredNorm};
    /// use kernels::{matmul::Linear, reduce::Reduce, softmax::CrossEntropy};
    ///
    /// let mut store = Store::new(Device::CPU);
    /// let bits: Vec<f32> = (0..8 * 3).map(|i| (i / 3 >> i % 3 & 1) as f32 - 0.5).collect();
    /// let x = store.insert(Buffer::from_slice(&[8, 3], &bits));
    /// let parity = store.insert(Buffer::from_slice(&[8], &[0, 1, 0, 1, 0, 1, 0, 1]));
    /// let w = store.insert(Buffer::new(Spec::new(DType::F32, &[2, 3])));
    ///
    /// let mut graph = Graph::new();
    /// let inputs = graph.leaf("x", Phase::Batch, x);
    /// let targets = graph.leaf("targets", Phase::Batch, parity);
    /// let weight = graph.leaf("w", Phase::Update, w);
    /// let logits = graph.apply(Linear, &[inputs, weight])?;
    /// let nll = graph.apply(CrossEntropy, &[logits, targets])?;
    /// let loss = graph.apply(Reduce::mean(), &[nll])?;
    /// let request = Request { root: Some(loss), wants: vec![weight], keep: vec![loss], ..Request::default() };
    /// let mut plan = Plan::new(&graph, &mut store, &request)?;
    ///
    /// // The moments start as zeros, as all that a store allocates.
    /// let [m, v] = [store.alloc(w.spec), store.alloc(w.spec)];
    /// let norms = store.alloc(Spec::new(DType::F32, &[1]));
    /// let schedule = store.alloc(Spec::new(DType::F32, &[2]));
    /// let rule = Rule { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    /// let (adamw, grad) = (AdamW { rule, clip: 1.0 }, plan.grad(weight));
    /// plan.push_update(&mut store, Phase::Step, "w", SquaredNorm { index: 0 }, &[grad], &[norms]);
    /// plan.push_update(&mut store, Phase::Step, "w", adamw, &[grad, norms, schedule], &[w, m, v]);
    ///
    /// for step in 1..=50 {
    ///     store.get_mut(schedule).set_f64(&[0.2, f64::from(step)]);
    ///     plan.run_all(&mut store);
    /// }
    /// assert!(store.get(plan.value(loss)).to_f64()[0] < 0.1);
    /// # Ok::<(), engine::Error>(())
    /// ```
    pub fn push_update(
        &mut self,
        store: &mut Store,
        phase: Phase,
        scope: &str,
        update: impl Update + 'static,
        ins: &[Id],
        state: &[Id],
    ) {
        let specs = |ids: &[Id]| ids.iter().map(|id| id.spec).collect::<Vec<Spec>>();
        let at = self.instrs.partition_point(|i| i.phase <= phase);
        let instr = Instr {
            ins: ins.iter().copied().map(Some).collect(),
            outs: state.iter().copied().map(Some).collect(),
            cost: update.cost(&specs(ins), &specs(state)),
            scratch: update.scratch(&store.device, &specs(ins), &specs(state)),
            ..Instr::new(Call::Update(Arc::new(update)), scope, phase)
        };
        self.instrs.insert(at, instr);
        self.capture = Mutex::default();
        self.reserve_scratch(store);
    }

    /// The buffer of a kept value after a run.
    ///
    /// # Panics
    /// If the request did not keep it.
    #[track_caller]
    pub fn value(&self, value: Value) -> Id {
        let kept = self.kept.iter().find(|(v, _)| *v == value);
        kept.expect("this value is not kept: the plan was not asked for it").1
    }

    /// The buffer of a leaf's gradient after a run.
    ///
    /// # Panics
    /// If the request did not want it.
    #[track_caller]
    pub fn grad(&self, leaf: Value) -> Id {
        let wanted = self.grads.iter().find(|(v, _)| *v == leaf);
        wanted.expect("this gradient is not computed: the plan was not asked for it").1
    }

    pub(crate) fn of_phase(&self, phase: Phase) -> impl Iterator<Item = &Instr<Id>> {
        self.instrs.iter().filter(move |i| i.phase == phase)
    }

    /// FLOPs and least bytes of one run of a phase.
    pub fn cost(&self, phase: Phase) -> Cost {
        self.of_phase(phase).map(|i| i.cost).sum()
    }

    /// Names of the instructions of a phase in order, e.g. `layers.0 linear backward`.
    pub fn labels(&self, phase: Phase) -> Vec<String> {
        self.of_phase(phase).map(Instr::label).collect()
    }

    /// The passes of ops in a phase, in order: the op's name, the pass and its cost. Updates and preparations are not
    /// included.
    pub fn passes(&self, phase: Phase) -> impl Iterator<Item = (&'static str, Pass<'_>, Cost)> {
        self.of_phase(phase).filter_map(|i| {
            let pass = match &i.call {
                Call::Forward(_) => Pass::Forward,
                Call::Vjp(_) => Pass::Vjp(&i.wants),
                Call::Fused(_) => Pass::Fused(&i.wants),
                Call::Update(_) | Call::Prepare(..) => return None,
            };
            Some((i.call.name(), pass, i.cost))
        })
    }

    fn reserve_scratch(&self, store: &mut Store) {
        let scratch = self.instrs.iter().map(|i| i.scratch).max().unwrap_or(0);
        store.grow_scratch(scratch);
    }
}
