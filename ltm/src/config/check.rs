use super::{Config, ModelConfig};
use engine::{Error, Result};

/// Tokens of a batch: beyond what any machine's memory holds activations of.
const MAX_TOKENS: usize = 1 << 26;

/// Returns a usage error unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
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
}
