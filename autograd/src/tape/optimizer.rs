use super::Program;
use crate::{Id, Phase};
use engine::{DType, Error, Result, Spec};
use kernels::adamw::{self, AdamW, SquaredNorm};
use kernels::muon::Muon;
use kernels::sgd::Sgd;

/// How a parameter follows its gradient. The kernels' documentation has the formulas and sources.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Stochastic gradient descent ([`Sgd`]).
    Sgd {
        /// Decay of the momentum, 0 for none.
        momentum: f64,
        /// Whether the step is taken where the momentum will lead.
        nesterov: bool,
    },
    /// [`AdamW`]
    AdamW {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        eps: f64,
    },
    /// [`Muon`] for matrices, AdamW with its usual constants for other parameters.
    Muon,
}

/// An optimiser's rule and constants. Change a field to change a constant:
/// `Optimizer { weight_decay: 0.1, clip: 1.0, ..Optimizer::adamw(1e-3) }`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// The rule.
    pub rule: Rule,
    /// The learning rate until [`Program::set_rate`] changes it.
    pub rate: f64,
    /// Weight decay of parameters with at least two dimensions; others don't decay.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; infinity for no clipping.
    pub clip: f64,
}

impl Optimizer {
    /// AdamW with decays of 0.9 and 0.999, without weight decay or clipping.
    pub fn adamw(rate: f64) -> Self {
        let rule = Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
        Self { rule, rate, weight_decay: 0.0, clip: f64::INFINITY }
    }

    /// Gradient descent with this momentum.
    pub fn sgd(rate: f64, momentum: f64) -> Self {
        Self { rule: Rule::Sgd { momentum, nesterov: false }, ..Self::adamw(rate) }
    }

    /// Muon for matrices, AdamW for the rest.
    pub fn muon(rate: f64) -> Self {
        Self { rule: Rule::Muon, ..Self::adamw(rate) }
    }
}

/// What a step of an optimiser reads besides gradients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Rate and number of the step.
    pub buffer: Id,
    pub rate: f64,
    pub step: u32,
}

impl Program<'_> {
    /// Appends the step of `optimizer` on the parameters whose gradients it computes.
    pub(super) fn with_optimizer(mut self, optimizer: Optimizer) -> Result<Self> {
        let Optimizer { rule, rate, weight_decay, clip } = optimizer;
        if rule == (Rule::Sgd { momentum: 0.0, nesterov: true }) {
            return Err(Error::usage("nesterov looks ahead along the momentum, so momentum must not be 0"));
        }
        if self.tape.dtype == DType::Bf16 {
            return Err(Error::usage("an optimiser needs parameters of f32 or f64, not of bf16"));
        }
        let tape = self.tape;
        let (graph, mut store) = (tape.graph.borrow(), tape.store.borrow_mut());
        let of = |n: usize| Spec::new(tape.dtype, &[n]);
        let (norms, schedule) = (store.alloc(of(self.wants.len().max(1))), store.alloc(of(2)));
        for (index, &leaf) in self.wants.iter().enumerate() {
            let (name, grad) = (graph.describe(leaf), self.plan.grad(leaf));
            self.plan.push_update(&mut store, Phase::Step, &name, SquaredNorm { index }, &[grad], &[norms]);
        }
        for &leaf in &self.wants {
            let (name, grad, w) =
                (graph.describe(leaf), self.plan.grad(leaf), graph.leaf_id(leaf).expect("a parameter"));
            let ins = [grad, norms, schedule];
            let weight_decay = if w.spec.shape.rank() >= 2 { weight_decay } else { 0.0 };
            let plan = &mut self.plan;
            match rule {
                Rule::Sgd { momentum, nesterov } => {
                    let sgd = Sgd { momentum, nesterov, weight_decay, clip };
                    let m = (momentum != 0.0).then(|| store.alloc(w.spec));
                    let state: Vec<Id> = std::iter::once(w).chain(m).collect();
                    plan.push_update(&mut store, Phase::Step, &name, sgd, &ins, &state);
                }
                Rule::Muon if w.spec.shape.rank() == 2 => {
                    let m = store.alloc(w.spec);
                    plan.push_update(
                        &mut store,
                        Phase::Step,
                        &name,
                        Muon { blocks: 1, weight_decay, clip },
                        &ins,
                        &[w, m],
                    );
                }
                Rule::AdamW { .. } | Rule::Muon => {
                    let (beta1, beta2, eps) = match rule {
                        Rule::AdamW { beta1, beta2, eps } => (beta1, beta2, eps),
                        _ => (0.9, 0.999, 1e-8),
                    };
                    let adamw = AdamW { rule: adamw::Rule { beta1, beta2, eps, weight_decay }, clip };
                    let [m, v] = [store.alloc(w.spec), store.alloc(w.spec)];
                    plan.push_update(&mut store, Phase::Step, &name, adamw, &ins, &[w, m, v]);
                }
            }
        }
        store.ready()?;
        drop((graph, store));
        self.schedule = Some(Schedule { buffer: schedule, rate, step: 0 });
        Ok(self)
    }
}
