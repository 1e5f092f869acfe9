use super::{Config, ModelConfig, ModelKind, Noise};
use crate::model::Params;
use autograd::Store;
use engine::DType;

impl Config {
    /// Whether the losses of training steps bound what a text costs: taken at the noise that the posterior was fitted to, they
    /// do not.
    pub fn losses_are_bounds(&self) -> bool {
        !self.model.kind.has_latents() || self.fast.noise == Noise::Fresh
    }
}

impl ModelConfig {
    /// Hidden size of the feed-forward part: `ffn`, or what follows from `dim` where that is 0.
    pub fn ffn_hidden(&self) -> usize {
        let usual = (8 * self.dim / 3).next_multiple_of(32);
        match (self.ffn, self.kind) {
            (0, ModelKind::Ltm) => usual,
            // Three matrices of that many more rows make up for cross-attention's four square ones and its norm.
            (0, ModelKind::Ar) => usual + (4 * self.dim + 1).div_ceil(3),
            (0, ModelKind::Gpt2) => 4 * self.dim,
            (given, _) => given,
        }
    }

    /// N_max: `max_seq`, or `seq` where that is 0.
    pub fn longest(&self) -> usize {
        if self.max_seq == 0 { self.seq } else { self.max_seq }
    }

    /// Dimensions per head D = d/H.
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Latent vectors of all layers together N_z = L·K; none without latents.
    pub fn latent_count(&self) -> usize {
        if self.kind.has_latents() { self.layers * self.latents } else { 0 }
    }

    /// The number of positions, where they are learned; rotary ones have no end.
    pub fn positions(&self) -> Option<usize> {
        (self.kind == ModelKind::Gpt2).then(|| self.longest())
    }
}

/// The number of decoder weights (the tied embedding counted once; latents are not weights). `model.vocab` must be set.
pub fn parameter_count(model: &ModelConfig) -> usize {
    // Memory that nobody writes to costs nothing.
    Params::new(model, DType::F32, &mut Store::default()).count()
}
