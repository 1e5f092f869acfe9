//! Slow learning: one step of Muon and AdamW on the decoder for the mean cross-entropy at a draw from the final posterior.

use crate::config::{ModelConfig, Optimizer, SlowConfig};
use crate::learn::fast::per_sample;
use crate::learn::{Inputs, Loss};
use crate::model::Params;
use autograd::{Graph, Id, NonFinite, Phase, Plan, Request, Store};
use engine::{Result, Spec};
use kernels::adamw::{AdamW, Rule, SquaredNorm};
use kernels::muon::Muon;

/// The slow step: gradient plan, moments, and the in-place update.
#[derive(Debug)]
pub struct Slow {
    gradient: Plan,
    update: Plan,
    nll: Id,
    loss: Id,
    norms: Id,
    schedule: Id,
    /// The gradients, in the parameters' order.
    pub grads: Vec<Id>,
    /// First and second moments, in the parameters' order. Muon has no second one.
    pub moments: Vec<(Id, Option<Id>)>,
}

impl Slow {
    /// Records and plans the step at latents `z`, a buffer `[B, L·K, d]`, `None` if none are inferred. `piles`, if
    /// any, have each parameter's gradient accumulated over the fast steps, to which the step adds its own.
    pub fn new(
        model: &ModelConfig,
        slow: &SlowConfig,
        params: &Params,
        inputs: &Inputs,
        z: Option<Id>,
        piles: &[Id],
        store: &mut Store,
    ) -> Result<Self> {
        let mean = ("mean", Phase::Batch, inputs.mean);
        let loss = Loss::record(model, params, inputs, z, mean, store)?;
        Self::of(loss, slow, params, piles, store)
    }

    /// Plans the step for a recorded loss, a mean over tokens.
    pub(super) fn of(loss: Loss, slow: &SlowConfig, params: &Params, piles: &[Id], store: &mut Store) -> Result<Self> {
        let Loss { graph, loss, nll, weights, .. } = loss;
        let wants = if piles.is_empty() { weights.clone() } else { Vec::new() };
        let accumulate = weights.iter().copied().zip(piles.iter().copied()).collect();
        let request = Request { root: Some(loss), wants, accumulate, keep: vec![nll, loss], ..Request::default() };
        let gradient = Plan::new(&graph, store, &request)?;
        let grads: Vec<Id> = weights.iter().map(|&w| gradient.grad(w)).collect();

        let dtype = params.dtype;
        let norms = store.alloc(Spec::new(dtype, &[grads.len()]));
        let schedule = store.alloc(Spec::new(dtype, &[2]));
        let mut update = Plan::new(&Graph::new(), store, &Request::default())?;
        for (index, (p, &grad)) in params.iter().zip(&grads).enumerate() {
            update.push_update(store, Phase::Batch, &p.name, SquaredNorm { index }, &[grad], &[norms]);
        }
        let mut moments = Vec::new();
        for (p, &grad) in params.iter().zip(&grads) {
            let weight_decay = if p.decays() { slow.weight_decay } else { 0.0 };
            let (ins, m) = ([grad, norms, schedule], store.alloc(p.spec));
            let v = if slow.optimizer == Optimizer::Muon && p.is_hidden() {
                let muon = Muon { blocks: p.parts().count(), weight_decay, clip: slow.clip };
                update.push_update(store, Phase::Step, &p.name, muon, &ins, &[p.id, m]);
                None
            } else {
                let rule = Rule { beta1: slow.beta1, beta2: slow.beta2, eps: slow.eps, weight_decay };
                let (adamw, v) = (AdamW { rule, clip: slow.clip }, store.alloc(p.spec));
                update.push_update(store, Phase::Step, &p.name, adamw, &ins, &[p.id, m, v]);
                Some(v)
            };
            moments.push((m, v));
        }
        let (nll, loss) = (gradient.value(nll), gradient.value(loss));
        Ok(Self { gradient, update, nll, loss, norms, schedule, grads, moments })
    }

    /// Sets all gradients to zero; call this before gradients accumulate.
    pub fn clear(&self, store: &mut Store) {
        self.grads.iter().for_each(|&id| store.get_mut(id).clear());
    }

    /// Computes the gradient at the loaded batch and the current z; adds it if gradients accumulate.
    pub fn gradient(&self, store: &mut Store) {
        self.gradient.run_all(store);
    }

    /// Like [`gradient`](Self::gradient), but stops at the first non-finite number and returns it.
    pub fn gradient_checked(&self, store: &mut Store) -> Result<Option<NonFinite>> {
        for phase in [Phase::Update, Phase::Batch, Phase::Step] {
            if let Some(found) = self.gradient.run_checked(store, phase)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Negative log-likelihood per sample of the latest gradient.
    pub fn nll(&self, store: &Store) -> Result<Vec<f64>> {
        per_sample(store.get(self.nll))
    }

    /// The loss of the latest gradient: nats per token.
    pub fn loss(&self, store: &Store) -> Result<f64> {
        Ok(store.get(self.loss).read_f64()?[0])
    }

    /// Global norm of the gradient; not finite if any of its numbers is not.
    pub fn grad_norm(&self, store: &mut Store) -> Result<f64> {
        self.update.run(store, Phase::Batch);
        Ok(store.get(self.norms).read_f64()?.iter().sum::<f64>().sqrt())
    }

    /// Clips the gradient by the norm that [`grad_norm`](Self::grad_norm) found, and updates the weights; `step` counts
    /// from 1.
    pub fn apply(&self, store: &mut Store, rate: f64, step: u64) {
        store.get_mut(self.schedule).set_f64(&[rate, step as f64]);
        self.update.run(store, Phase::Step);
    }

    /// The plans of the gradient and of the update.
    pub fn plans(&self) -> [&Plan; 2] {
        [&self.gradient, &self.update]
    }
}
