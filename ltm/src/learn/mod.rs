//! Dual-rate learning (Kong et al. 2025, Algorithm 1): latents of every text by gradient steps on a Gaussian posterior, the
//! decoder slowly from the final posterior.

mod fast;
mod inputs;
mod score;
mod slow;

pub use fast::{Fast, FastOptions, Latents, WeightGradients};
pub use inputs::Inputs;
pub use score::{Score, Scores};
pub use slow::Slow;

use crate::config::{Config, ModelConfig, SlowGradient};
use crate::model::{Decoder, Params, Positions};
use autograd::{Graph, Id, Phase, Store, Value};
use engine::Result;
use kernels::cross_entropy::LmHead;

/// The decoder's loss, recorded as the fast loop, the slow step and the score want it.
struct Loss {
    graph: Graph,
    /// The latents.
    z: Option<Value>,
    /// The sum over all targets that count.
    loss: Value,
    /// Of every token, `[B, N]`.
    nll: Value,
    /// The decoder's weights, in the parameters' order.
    weights: Vec<Value>,
}

impl Loss {
    /// Records the loss of the batch in `inputs` at latents `z`, a buffer `[B, L·K, d]`, if the model has any. `scale` is the
    /// factor of the sum: its name, how often it changes, and where it is.
    fn record(
        model: &ModelConfig,
        params: &Params,
        inputs: &Inputs,
        z: Option<Id>,
        scale: (&'static str, Phase, Id),
        store: &mut Store,
    ) -> Result<Self> {
        let mut graph = Graph::new();
        let g = &mut graph;
        let positions = Positions::new(model, inputs.sequence, store);
        let decoder = Decoder::new(model, params, &positions, g, Phase::Update)?;
        let tokens = g.leaf("tokens", Phase::Batch, inputs.tokens);
        let targets = g.leaf("targets", Phase::Batch, inputs.targets);
        let (name, phase, id) = scale;
        let scale = g.leaf(name, phase, id);
        let z = z.map(|z| g.leaf("z", Phase::Step, z));
        let hidden = decoder.hidden(g, tokens, z, |g, _, qkv| decoder.window_attention(g, qkv))?;
        let loss = g.apply(LmHead, &[hidden, decoder.weight("tok_embeddings"), targets, scale])?;
        let nll = g.output(loss, "nll");
        let weights = decoder.leaves().to_vec();
        Ok(Self { graph, z, loss, nll, weights })
    }
}

/// Buffers, one per parameter, for the decoder's gradients to pile up in during fast steps; none where the configuration
/// does not want them.
pub fn piles(config: &Config, params: &Params, store: &mut Store) -> Vec<Id> {
    match config.slow.gradient {
        SlowGradient::Final => Vec::new(),
        SlowGradient::Trajectory => params.iter().map(|p| store.alloc(p.spec)).collect(),
    }
}

/// The fast loop of training, if the model has latents. It owns z, which the slow step reads; the slow step owns the
/// gradients that are left in `piles`.
///
/// # Errors
/// If the configuration contradicts itself.
pub fn fast_loop(
    config: &Config,
    params: &Params,
    inputs: &Inputs,
    piles: &[Id],
    store: &mut Store,
) -> Result<Option<Fast>> {
    let weights = if piles.is_empty() { WeightGradients::Skipped } else { WeightGradients::PiledUp(piles.to_vec()) };
    let options = FastOptions { seed: config.train.seed, weights, ..FastOptions::default() };
    let new = || Fast::new(&config.model, &config.fast, params, inputs, store, &options);
    config.model.kind.has_latents().then(new).transpose()
}
