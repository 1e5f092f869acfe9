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

use crate::config::{Config, SlowGradient};
use crate::model::Params;
use autograd::{Id, Store};
use engine::Result;

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
