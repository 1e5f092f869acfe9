//! Scores a fitted posterior with fresh noise, as a valid bound requires; and a model that infers no latents by its
//! exact probabilities.

use crate::config::ModelConfig;
use crate::learn::fast::{per_sample, row_sums};
use crate::learn::{Draw, Inputs, Latents, Loss};
use crate::model::Params;
use autograd::{Id, Phase, Plan, Request, Store};
use engine::Result;

/// One draw z ~ q(z|x) for every sample of the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// −log p(x|z) per sample, in nats.
    pub nll: Vec<f64>,
    /// The same per token, `[B, N]`.
    pub token_nll: Vec<f64>,
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
        let draw = latents.map(|latents| {
            let spec = store.get(latents.z).spec();
            let at = [store.alloc(spec), store.alloc(spec)];
            Draw::new(latents, at, inputs, seed, store)
        });
        let draw = draw.transpose()?;
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
            log_ratio = draw.run(store, number)?;
        }
        self.body.run(store, Phase::Step);
        let token_nll = store.get(self.nll).read_f64()?;
        Ok(Scores { nll: row_sums(&token_nll, store.get(self.nll).shape().last()), token_nll, log_ratio })
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
}
