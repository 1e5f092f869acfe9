use super::{Config, ModelConfig};
use engine::{Error, Result};

/// Token shards hold 16-bit ids.
const MAX_VOCAB: usize = 1 << 16;

/// A fast step's number shares a word of the noise's counter with other things.
const MAX_FAST_STEPS: usize = u16::MAX as usize;

/// Tokens of a batch: beyond what any machine's memory holds activations of.
const MAX_TOKENS: usize = 1 << 26;

impl Config {
    /// The configuration with its derived sizes filled in, after checking that it does not contradict itself. What a run
    /// works with and records.
    ///
    /// # Errors
    /// A usage error naming the keys concerned, their values, and what would be right.
    pub fn resolved(&self) -> Result<Self> {
        let mut config = self.clone();
        // Before anything is derived from them: the sizes have to be sane.
        config.check_ranges()?;
        config.model.ffn = config.model.ffn_hidden();
        config.model.max_seq = config.model.longest();
        if config.model.vocab == 0 {
            config.model.vocab = config.data.tokenizer.vocab();
        }
        config.model.check()?;
        config.check_vocabulary()?;
        config.check_learning()?;
        Ok(config)
    }

    /// Whether [`Config::resolved`] would succeed.
    ///
    /// # Errors
    /// Those of [`Config::resolved`].
    pub fn validate(&self) -> Result<()> {
        self.resolved().map(|_| ())
    }

    /// Each integer by itself. The upper limits keep products of sizes within an address and steps within the counters of
    /// the noise.
    pub fn check_ranges(&self) -> Result<()> {
        let (m, t) = (&self.model, &self.train);
        let ranges = [
            ("model.layers", m.layers, 1, 1 << 10),
            ("model.dim", m.dim, 2, 1 << 16),
            ("model.heads", m.heads, 1, 1 << 15),
            ("model.ffn", m.ffn, 0, 1 << 18),
            ("model.vocab", m.vocab, 0, MAX_VOCAB),
            ("model.seq", m.seq, 1, 1 << 24),
            ("model.max_seq", m.max_seq, 0, 1 << 24),
            ("model.window", m.window, 1, 1 << 24),
            ("model.latents", m.latents, 1, 1 << 24),
            ("fast.steps", self.fast.steps, 1, MAX_FAST_STEPS),
            ("fast.kl_warmup", self.fast.kl_warmup, 0, u32::MAX as usize),
            ("slow.warmup", self.slow.warmup, 0, u32::MAX as usize),
            // A GPU counts no more blocks in a column.
            ("train.batch", t.batch, 1, (1 << 16) - 1),
            ("train.steps", t.steps, 1, u32::MAX as usize),
            ("train.keep_checkpoints", t.keep_checkpoints, 1, usize::MAX),
            ("train.threads", t.threads, 0, 1 << 12),
        ];
        for (key, value, least, most) in ranges {
            ensure(value >= least, || format!("{key} = {value}: must be at least {least}"))?;
            ensure(value <= most, || format!("{key} = {value}: must be at most {most}"))?;
        }
        let tokens = t.batch * m.seq;
        ensure(tokens <= MAX_TOKENS, || {
            format!(
                "train.batch = {} sequences of model.seq = {} are {tokens} tokens a step: must be at most {MAX_TOKENS}",
                t.batch, m.seq
            )
        })
    }

    /// The tokenizer's ids are among the model's.
    fn check_vocabulary(&self) -> Result<()> {
        let (vocab, needed) = (self.model.vocab, self.data.tokenizer.vocab());
        ensure(vocab >= needed, || {
            format!(
                "model.vocab = {vocab} is too small for data.tokenizer = {}: use at least {needed}, or 0 for exactly that",
                self.data.tokenizer
            )
        })
    }

    fn check_learning(&self) -> Result<()> {
        let (f, s) = (&self.fast, &self.slow);
        // Comparisons are written so that NaN fails them.
        for (key, value) in [
            ("model.norm_eps", self.model.norm_eps),
            ("model.rope_theta", self.model.rope_theta),
            ("fast.eps", f.eps),
            ("slow.eps", s.eps),
            ("slow.clip", s.clip),
        ] {
            ensure(value > 0.0 && value.is_finite(), || format!("{key} = {value}: must be more than 0"))?;
        }
        for (key, value) in [
            ("fast.rate_start", f.rate_start),
            ("fast.rate_end", f.rate_end),
            ("fast.weight_decay", f.weight_decay),
            ("fast.init_logvar_std", f.init_logvar_std),
            ("slow.rate", s.rate),
            ("slow.min_rate", s.min_rate),
            ("slow.weight_decay", s.weight_decay),
        ] {
            ensure(value >= 0.0 && value.is_finite(), || format!("{key} = {value}: must be 0 or more"))?;
        }
        for (key, value) in [
            ("fast.beta1", f.beta1),
            ("fast.beta2", f.beta2),
            ("slow.beta1", s.beta1),
            ("slow.beta2", s.beta2),
            ("data.validation_fraction", self.data.validation_fraction),
        ] {
            ensure((0.0..1.0).contains(&value), || format!("{key} = {value}: must be at least 0 and less than 1"))?;
        }
        ensure((0.0..=1.0).contains(&f.damping), || format!("fast.damping = {}: must be from 0 to 1", f.damping))?;
        ensure(f.init_logvar.abs() <= 30.0, || {
            format!("fast.init_logvar = {}: must be from -30 to 30, as a log-variance", f.init_logvar)
        })?;
        ensure(s.min_rate <= s.rate, || {
            format!(
                "slow.min_rate = {} is above slow.rate = {}: the rate falls from the latter to it",
                s.min_rate, s.rate
            )
        })
    }
}

impl ModelConfig {
    /// Whether resolved sizes fit each other.
    ///
    /// # Errors
    /// A usage error naming the keys concerned, their values, and what would be right.
    pub fn check(&self) -> Result<()> {
        let m = self;
        ensure(m.dim.is_multiple_of(m.heads), || {
            let above = m.dim.next_multiple_of(if m.positions().is_some() { m.heads } else { 2 * m.heads });
            format!("model.dim = {} is not divisible by model.heads = {}: use e.g. model.dim = {above}", m.dim, m.heads)
        })?;
        ensure(m.positions().is_some() || m.head_dim().is_multiple_of(2), || {
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
            format!(
                "model.latents = {} per layer are more than model.seq = {} tokens: use at most that",
                m.latents, m.seq
            )
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
