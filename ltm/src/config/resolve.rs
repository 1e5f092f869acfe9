//! Derives sizes from others, and checks that all settings fit together.

use super::{Config, FastConfig, ModelConfig, ModelKind, Noise, SlowGradient, TrainConfig};
use crate::model::{Params, TimeEmbedding, ffn_hidden};
use autograd::Store;
use engine::{DType, Error, Result};

/// Largest number of tokens per batch, beyond the memory of any machine.
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
    /// The configuration with its derived sizes, after checking that it is consistent. A run uses and records this one.
    ///
    /// # Errors
    /// A usage error naming the keys concerned, their values, and what would be right.
    pub fn resolved(&self) -> Result<Self> {
        // Sizes must be valid before others are derived from them.
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
            "train.batch = {batch} sequences of model.seq = {} are {tokens} tokens per step: must be at most \
             {MAX_TOKENS}",
            m.seq
        );
        ensure!(
            m.vocab >= tokenizer.vocab(),
            "model.vocab = {} is too small for data.tokenizer = {tokenizer}: use at least {}, or 0 for exactly that",
            m.vocab,
            tokenizer.vocab()
        );
        ensure!(
            config.model.kind != ModelKind::Oracle || config.data.paths.is_empty(),
            "model.kind = oracle is told the facts of every story of the embedded corpus, and other text has none: leave \
             data.paths empty"
        );
        ensure!(
            slow.min_rate <= slow.rate,
            "slow.min_rate = {} is above slow.rate = {}: the rate falls from slow.rate to slow.min_rate",
            slow.min_rate,
            slow.rate
        );
        let rows = config.train.rows();
        let parts = batch.div_ceil(rows).next_power_of_two();
        ensure!(
            batch == rows * parts,
            "train.batch = {batch} is not a power of two times train.micro = {rows}: use e.g. train.batch = {}",
            rows * parts
        );
        ensure!(
            slow.updates == 1 || slow.gradient == SlowGradient::Final,
            "slow.updates = {} needs slow.gradient = final: a trajectory has one gradient per batch",
            slow.updates
        );
        Ok(config)
    }

    /// This configuration for another kind of model, such as a baseline. If `model.ffn` is given, `ar` and masked
    /// diffusion get the weights of their missing cross-attention in addition.
    #[must_use]
    pub fn of_kind(&self, kind: ModelKind) -> Self {
        let mut config = self.clone();
        config.model.kind = kind;
        if (kind == ModelKind::Ar || kind.method().is_some()) && self.model.kind.reads_latents() && self.model.ffn > 0 {
            // The difference of the sizes that both kinds have by default.
            let [own, other] = [&self.model, &config.model].map(|m| ModelConfig { ffn: 0, ..m.clone() }.ffn_hidden());
            config.model.ffn = (self.model.ffn + other).saturating_sub(own).max(1);
        }
        config
    }

    /// Checks what only training needs: evaluation takes any number of fast steps, because it draws its own noise.
    ///
    /// # Errors
    /// A usage error naming the keys concerned.
    pub fn check_training(&self) -> Result<()> {
        ensure!(
            !self.model.kind.infers() || self.fast.noise == Noise::Fixed || self.fast.ends_with_a_draw(),
            "fast.noise = antithetic needs an even fast.steps to train: the noise of the decoder's step must not be one that the \
             posterior was fitted to"
        );
        Ok(())
    }

    /// Whether the losses of training steps are bounds: with fixed noise they are not, because they use the noise that
    /// the posterior was fitted to.
    pub fn losses_are_bounds(&self) -> bool {
        !self.model.kind.infers() || self.fast.noise != Noise::Fixed
    }
}

impl FastConfig {
    /// Whether z after the last fast step is a draw from the final posterior: made by noise that the posterior was not
    /// fitted to.
    pub fn ends_with_a_draw(&self) -> bool {
        match self.noise {
            Noise::Fresh => true,
            Noise::Antithetic => self.steps.is_multiple_of(2),
            Noise::Fixed => false,
        }
    }
}

impl TrainConfig {
    /// Samples computed at once: `micro`, or the whole batch if that is 0.
    pub fn rows(&self) -> usize {
        if self.micro == 0 { self.batch } else { self.micro }
    }

    /// Parts of a batch that are computed one after the other.
    pub fn parts(&self) -> usize {
        self.batch / self.rows()
    }

    /// Parts of a batch that each of `ranks` processes computes.
    ///
    /// # Errors
    /// A usage error that names the numbers that fit, if they cannot be shared equally.
    pub fn parts_of_each(&self, ranks: usize) -> Result<usize> {
        let (batch, rows, parts) = (self.batch, self.rows(), self.parts());
        if parts.is_multiple_of(ranks) {
            return Ok(parts / ranks);
        }
        // As many as share the parts, or parts that as many share.
        let (fewer, micro) = (1 << ranks.min(parts).ilog2(), batch / ranks.next_power_of_two());
        let more = if micro > 0 {
            format!(", or train.micro = {micro} with {}", ranks.next_power_of_two())
        } else {
            String::new()
        };
        Err(Error::usage(format!(
            "{ranks} processes cannot share train.batch = {batch} in {parts} parts of train.micro = {rows}: use {fewer}{more}"
        )))
    }
}

impl ModelConfig {
    /// Checks that resolved sizes fit together.
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
            "model.dim / model.heads = {width} is odd, but rotary positions need pairs: use e.g. model.dim = {}",
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

    /// Hidden size of the feed-forward part: `ffn`, or derived from `dim` if that is 0.
    pub fn ffn_hidden(&self) -> usize {
        let usual = (8 * self.dim / 3).next_multiple_of(32);
        match (self.ffn, self.kind) {
            (0, ModelKind::Ltm | ModelKind::ArLatent | ModelKind::Oracle) => usual,
            (0, ModelKind::Ar | ModelKind::Mdlm) => usual + self.worth_of_cross_attention(),
            (0, ModelKind::Sedd | ModelKind::Md4) => ffn_hidden(self, Some(TimeEmbedding::of(self.dim))),
            (0, ModelKind::Gpt2) => 4 * self.dim,
            (given, _) => given,
        }
    }

    /// This many more rows in the feed-forward part's three matrices replace cross-attention's four square matrices and its norm.
    fn worth_of_cross_attention(&self) -> usize {
        (4 * self.dim + 1).div_ceil(3)
    }

    /// N_max: `max_seq`, or `seq` if that is 0.
    pub fn longest(&self) -> usize {
        if self.max_seq == 0 { self.seq } else { self.max_seq }
    }

    /// Dimensions per head D = d/H.
    pub fn head_dim(&self) -> usize {
        self.dim / self.heads
    }

    /// Latent vectors of all layers together N_z = L·K; 0 if no layer attends to any.
    pub fn latent_count(&self) -> usize {
        if self.kind.reads_latents() { self.layers * self.latents } else { 0 }
    }

    /// The number of tokens back that the decoder sees through all layers.
    pub fn reach(&self) -> usize {
        self.layers * (self.window - 1) + 1
    }

    /// The number of positions if they are learned; rotary ones are unlimited.
    pub fn positions(&self) -> Option<usize> {
        (self.kind == ModelKind::Gpt2).then(|| self.longest())
    }
}

/// The number of decoder weights (the tied embedding counted once; inferred latents are not weights). `model.vocab` must be set.
pub fn parameter_count(model: &ModelConfig) -> usize {
    // Memory that is never written costs nothing.
    Params::new(model, DType::F32, &mut Store::default()).count()
}
