//! Scores a fitted posterior with fresh noise, as a valid bound requires; and a model that infers no latents by its
//! exact probabilities.

use crate::config::ModelConfig;
use crate::learn::fast::per_sample;
use crate::learn::{Inputs, Latents, Loss};
use crate::model::Params;
use autograd::{Graph, Id, Phase, Plan, Request, Store};
use engine::{DType, Result, Spec};
use kernels::latents::LatentDraw;

/// One draw z ~ q(z|x) for every sample of the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// −log p(x|z) per sample, in nats.
    pub nll: Vec<f64>,
    /// log q(z|x) − log p(z) per sample, in nats: its mean over draws is the KL. Empty if the model infers no latents.
    pub log_ratio: Vec<f64>,
}

/// Draws z from the posterior, if the model infers one, and computes −log p(x|z): forward only.
#[derive(Debug)]
pub struct Score {
    draw: Option<Draw>,
    body: Plan,
    nll: Id,
}

/// A draw from the posterior.
#[derive(Debug)]
struct Draw {
    plan: Plan,
    log_ratio: Id,
    number: Id,
    z: Id,
}

impl Draw {
    fn new(latents: &Latents, inputs: &Inputs, seed: u64, store: &mut Store) -> Result<Self> {
        let spec = store.get(latents.z).spec();
        let (eps, z) = (store.alloc(spec), store.alloc(spec));
        let log_ratio = store.alloc(Spec::new(spec.dtype, &[inputs.batch]));
        let number = store.alloc(Spec::new(DType::I32, &[1]));
        let mut plan = Plan::new(&Graph::new(), store, &Request::default())?;
        let ins = [latents.mu, latents.logvar, inputs.samples, number];
        plan.push_update(store, Phase::Step, "latents", LatentDraw { seed }, &ins, &[eps, z, log_ratio]);
        Ok(Self { plan, log_ratio, number, z })
    }
}

impl Score {
    /// Records and plans for the batch in `inputs` and the posterior in `latents`, `None` for a model that infers none.
    pub fn new(
        model: &ModelConfig,
        params: &Params,
        inputs: &Inputs,
        latents: Option<&Latents>,
        seed: u64,
        store: &mut Store,
    ) -> Result<Self> {
        let draw = latents.map(|latents| Draw::new(latents, inputs, seed, store)).transpose()?;
        let (one, z) = (("one", Phase::Update, inputs.one), draw.as_ref().map(|draw| draw.z));
        let Loss { graph, nll, .. } = Loss::record(model, params, inputs, z, one, store)?;
        let body = Plan::new(&graph, store, &Request { keep: vec![nll], ..Request::default() })?;
        let nll = body.value(nll);
        Ok(Self { draw, body, nll })
    }

    /// Prepares for the loaded batch.
    pub fn begin(&self, store: &mut Store) {
        self.body.run(store, Phase::Update);
        self.body.run(store, Phase::Batch);
    }

    /// Draw number `number`: independent of all other numbers and of the noise of the fast steps. If none are
    /// inferred, it is the text's exact probability.
    pub fn draw(&self, store: &mut Store, number: u32) -> Result<Scores> {
        let mut log_ratio = Vec::new();
        if let Some(draw) = &self.draw {
            store.get_mut(draw.number).write(&[number as i32]);
            draw.plan.run(store, Phase::Step);
            log_ratio = store.get(draw.log_ratio).read_f64()?;
        }
        self.body.run(store, Phase::Step);
        Ok(Scores { nll: per_sample(store.get(self.nll))?, log_ratio })
    }

    /// −log p(x|z) per sample, in nats, at a given z, in the buffer `z`.
    ///
    /// # Panics
    /// If the model infers no latents.
    pub fn at(&self, store: &mut Store, z: Id) -> Result<Vec<f64>> {
        let draw = self.draw.as_ref().expect("latents to set");
        store.copy(z, draw.z);
        self.body.run(store, Phase::Step);
        per_sample(store.get(self.nll))
    }

    /// Per-token negative log-likelihood of the latest draw, `[B, N]`.
    pub fn token_nll(&self, store: &Store) -> Result<Vec<f64>> {
        store.get(self.nll).read_f64()
    }
}
