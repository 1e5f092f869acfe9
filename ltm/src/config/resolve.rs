//! Sizes that follow from others, and whether all settings fit each other.

use super::{Config, ModelConfig, ModelKind, Noise};
use crate::model::Params;
use autograd::Store;
use engine::{DType, Error, Result};

/// Tokens of a batch: beyond what any machine's memory holds activations of.
const MAX_TOKENS: usize = 1 << 26;

/// Returns a usage error unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        let holds = $holds;
        if !holds {
            return Err(Error::usage(format!($($message)+)));
        }
    };
}

impl Config {
    /// The configuration with its derived sizes filled in, after checking that it does not contradict itself. What a run
    /// works with and records.
    ///
    /// # Errors
    /// A usage error naming the keys concerned, their values, and what would be right.
    pub fn resolved(&self) -> Result<Self> {
        // Before anything is derived from them: the sizes have to be sane.
        self.check_ranges()?;
        let mut config = self.clone();
        let (m, slow, batch) = (&mut config.model, &config.slow, config.train.batch);
        let (tokenizer, tokens) = (config.data.tokenizer, batch * m.seq);
        m.ffn = m.ffn_hidden();
        m.max_seq = m.longest();
        if m.vocab == 0 {
            m.vocab = tokenizer.vocab();
        }
        m.check()?;
        ensure!(
            tokens <= MAX_TOKENS,
            "train.batch = {batch} sequences of model.seq = {} are {tokens} tokens a step: must be at most {MAX_TOKENS}",
            m.seq
        );
        ensure!(
            m.vocab >= tokenizer.vocab(),
            "model.vocab = {} is too small for data.tokenizer = {tokenizer}: use at least {}, or 0 for exactly that",
            m.vocab,
            tokenizer.vocab()
        );
        ensure!(
            slow.min_rate <= slow.rate,
            "slow.min_rate = {} is above slow.rate = {}: the rate falls from the latter to it",
            slow.min_rate,
            slow.rate
        );
        Ok(config)
    }

    /// Whether the losses of training steps bound what a text costs: taken at the noise that the posterior was fitted to, they
    /// do not.
    pub fn losses_are_bounds(&self) -> bool {
        !self.model.kind.has_latents() || self.fast.noise == Noise::Fresh
    }
}

impl ModelConfig {
    /// Whether resolved sizes fit each other.
    ///
    /// # Errors
    /// A usage error naming the keys concerned, their values, and what would be right.
    pub fn check(&self) -> Result<()> {
        let Self { layers, dim, heads, seq, max_seq, window, latents, .. } = *self;
        let (rotary, width, count) = (self.positions().is_none(), self.head_dim(), self.latent_count());
        ensure!(
            dim.is_multiple_of(heads),
            "model.dim = {dim} is not divisible by model.heads = {heads}: use e.g. model.dim = {}",
            dim.next_multiple_of(if rotary { 2 * heads } else { heads })
        );
        ensure!(
            !rotary || width.is_multiple_of(2),
            "model.dim / model.heads = {width} is odd, but rotary positions turn pairs: use e.g. model.dim = {}",
            heads * (width + 1)
        );
        ensure!(
            seq <= max_seq,
            "model.seq = {seq} is longer than model.max_seq = {max_seq}: shorten it, or set model.max_seq = 0"
        );
        ensure!(window <= seq, "model.window = {window} is wider than model.seq = {seq}: use at most that");
        ensure!(
            latents <= seq || count == 0,
            "model.latents = {latents} are more than model.seq = {seq} tokens: use at most that"
        );
        ensure!(
            count <= max_seq,
            "model.latents = {latents} in model.layers = {layers} make {count} latents, more than the {max_seq} positions of \
             model.max_seq: use at most {} per layer",
            max_seq / layers
        );
        Ok(())
    }

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
