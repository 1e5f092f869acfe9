use super::{Config, ModelConfig};
use engine::{Error, Result};

/// Tokens of a batch: beyond what any machine's memory holds activations of.
const MAX_TOKENS: usize = 1 << 26;

impl Config {
    /// The configuration with its derived sizes filled in, after checking that it does not contradict itself. What a run
    /// works with and records.
    ///
    /// # Errors
    /// A usage error naming the keys concerned, their values, and what would be right.
    pub fn resolved(&self) -> Result<Self> {
        // Before anything is derived from them: the sizes have to be sane.
        self.check_ranges()?;
        let (mut config, tokenizer) = (self.clone(), self.data.tokenizer);
        config.model.ffn = config.model.ffn_hidden();
        config.model.max_seq = config.model.longest();
        if config.model.vocab == 0 {
            config.model.vocab = tokenizer.vocab();
        }
        config.model.check()?;
        let (m, slow, batch) = (&config.model, &config.slow, config.train.batch);
        let tokens = batch * m.seq;
        ensure(tokens <= MAX_TOKENS, || {
            format!(
                "train.batch = {batch} sequences of model.seq = {} are {tokens} tokens a step: must be at most {MAX_TOKENS}",
                m.seq
            )
        })?;
        ensure(m.vocab >= tokenizer.vocab(), || {
            format!(
                "model.vocab = {} is too small for data.tokenizer = {tokenizer}: use at least {1}, or 0 for exactly that",
                m.vocab,
                tokenizer.vocab()
            )
        })?;
        ensure(slow.min_rate <= slow.rate, || {
            format!(
                "slow.min_rate = {} is above slow.rate = {}: the rate falls from the latter to it",
                slow.min_rate, slow.rate
            )
        })?;
        Ok(config)
    }
}

impl ModelConfig {
    /// Whether resolved sizes fit each other.
    ///
    /// # Errors
    /// A usage error naming the keys concerned, their values, and what would be right.
    pub fn check(&self) -> Result<()> {
        let m = self;
        let rotary = m.positions().is_none();
        ensure(m.dim.is_multiple_of(m.heads), || {
            let above = m.dim.next_multiple_of(if rotary { 2 * m.heads } else { m.heads });
            format!("model.dim = {} is not divisible by model.heads = {}: use e.g. model.dim = {above}", m.dim, m.heads)
        })?;
        ensure(!rotary || m.head_dim().is_multiple_of(2), || {
            format!(
                "model.dim / model.heads = {} is odd, but rotary positions turn pairs: use e.g. model.dim = {}",
                m.head_dim(),
                m.heads * (m.head_dim() + 1)
            )
        })?;
        ensure(m.seq <= m.max_seq, || {
            format!(
                "model.seq = {} is longer than model.max_seq = {}: shorten it, or set model.max_seq = 0",
                m.seq, m.max_seq
            )
        })?;
        ensure(m.window <= m.seq, || {
            format!("model.window = {} is wider than model.seq = {}: use at most that", m.window, m.seq)
        })?;
        ensure(m.latents <= m.seq || !m.kind.has_latents(), || {
            format!("model.latents = {} are more than model.seq = {} tokens: use at most that", m.latents, m.seq)
        })?;
        ensure(m.latent_count() <= m.max_seq, || {
            format!(
                "model.latents = {} in model.layers = {} make {} latents, more than the {} positions of model.max_seq: use at most {} per layer",
                m.latents,
                m.layers,
                m.latent_count(),
                m.max_seq,
                m.max_seq / m.layers
            )
        })
    }
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::usage(message())) }
}
