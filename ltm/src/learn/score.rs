//! Scoring a fitted posterior with fresh noise: what an honest evaluation needs.

use crate::config::ModelConfig;
use crate::learn::fast::per_sample;
use crate::learn::{Inputs, Latents};
use crate::model::{Decoder, Params, Positions};
use autograd::{Graph, Hoist, Id, Phase, Plan, Request, Store};
use engine::{DType, Result, Spec};
use kernels::cross_entropy::LmHead;
use kernels::latents::LatentDraw;

/// One draw z ~ q(z|x) for every sample of the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// −log p(x|z) per sample, in nats.
    pub nll: Vec<f64>,
    /// log q(z|x) − log p(z) per sample, in nats: its mean over draws is the KL.
    pub log_ratio: Vec<f64>,
}

/// Draws z from the posterior and computes −log p(x|z): forward only.
#[derive(Debug)]
pub struct Score {
    draw: Plan,
    body: Plan,
    nll: Id,
    log_ratio: Id,
    number: Id,
    z: Id,
}

impl Score {
    /// Records and plans for the posterior in `latents` and the batch in `inputs`.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn new(
        model: &ModelConfig,
        params: &Params,
        inputs: &Inputs,
        latents: &Latents,
        seed: u64,
        store: &mut Store,
    ) -> Result<Self> {
        let dtype = params.dtype();
        let spec = store.get(latents.z).spec();
        let (eps, z) = (store.alloc(spec), store.alloc(spec));
        let log_ratio = store.alloc(Spec::new(dtype, &[inputs.batch]));
        let number = store.alloc(Spec::new(DType::I32, &[1]));
        let mut draw = Plan::new(&Graph::new(), store, &Request::default())?;
        let ins = [latents.mu, latents.logvar, inputs.samples, number];
        draw.push_update(store, Phase::Step, "latents", LatentDraw { seed }, &ins, &[eps, z, log_ratio]);

        let mut g = Graph::new();
        let positions = Positions::new(model, inputs.sequence, store);
        let decoder = Decoder::new(model, params, &positions, store, &mut g, Phase::Update)?;
        let grid = store.get(inputs.tokens).spec();
        let tokens = g.leaf("tokens", grid, Phase::Batch, inputs.tokens);
        let targets = g.leaf("targets", grid, Phase::Batch, inputs.targets);
        let one = g.leaf("one", store.get(inputs.one).spec(), Phase::Update, inputs.one);
        let latent = g.leaf("z", spec, Phase::Step, z);
        let hidden = decoder.hidden(&mut g, tokens, latent, |g, _, qkv| decoder.window_attention(g, qkv))?;
        let loss = g.apply(LmHead, &[hidden, decoder.weight("tok_embeddings"), targets, one])?;
        let nll = g.output(loss, "nll");
        let body = Plan::new(&g, store, &Request { keep: vec![nll], hoist: Hoist::On, ..Request::default() })?;
        let nll = body.value(nll);
        Ok(Self { draw, body, nll, log_ratio, number, z })
    }

    /// Prepares for the batch that is loaded.
    pub fn begin(&self, store: &mut Store) {
        self.body.run(store, Phase::Update);
        self.body.run(store, Phase::Batch);
    }

    /// Draw number `number`: independent of all other numbers and of the noise of the fast steps.
    pub fn draw(&self, store: &mut Store, number: u32) -> Scores {
        store.get_mut(self.number).write(&[number as i32]);
        self.draw.run(store, Phase::Step);
        self.body.run(store, Phase::Step);
        Scores { nll: per_sample(store.get(self.nll)), log_ratio: store.get(self.log_ratio).to_f64() }
    }

    /// The score at a given z, in the buffer `z`; its `log_ratio` is empty.
    pub fn at(&self, store: &mut Store, z: Id) -> Scores {
        let values = store.get(z).clone();
        store.get_mut(self.z).copy_from(&values);
        self.body.run(store, Phase::Step);
        Scores { nll: per_sample(store.get(self.nll)), log_ratio: Vec::new() }
    }

    /// Per-token negative log-likelihood of the latest draw, `[B, N]`.
    pub fn token_nll(&self, store: &Store) -> Vec<f64> {
        store.get(self.nll).to_f64()
    }
}
