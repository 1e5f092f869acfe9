use super::{Chunking, ModelKind, Noise, NonFinite, Posterior, Precision, Schedule, SlowGradient, Tokenizer};
use std::path::PathBuf;

/// Everything that a training run depends on, apart from the data themselves.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Config {
    /// The decoder's sizes.
    pub model: ModelConfig,
    /// Inference of a sample's posterior.
    pub fast: FastConfig,
    /// Learning of the decoder's weights.
    pub slow: SlowConfig,
    /// The run.
    pub train: TrainConfig,
    /// The corpus.
    pub data: DataConfig,
}

impl Config {
    /// Whether what training steps report as their loss bounds what a text costs: at the very noise that was fitted to, it does
    /// not.
    pub fn losses_are_bounds(&self) -> bool {
        !self.model.kind.has_latents() || self.fast.noise == Noise::Fresh
    }
}

/// Sizes of the decoder p(x | z). Three of them may be 0, "follows from the others"; [`Config::resolved`] fills them in.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// With latents, or the baseline without. The latter ignores `latents` and everything about fast learning.
    pub kind: ModelKind,
    /// Layers L.
    pub layers: usize,
    /// Width d.
    pub dim: usize,
    /// Attention heads H; each has d/H dimensions, an even number.
    pub heads: usize,
    /// Hidden size of the feed-forward part; 0 for ⌈(2/3·4d)/32⌉·32, for the baseline for the least with which it has no fewer
    /// weights than the model with latents, and for GPT-2's layers for 4d.
    pub ffn: usize,
    /// Vocabulary V, embedding and output tied; 0 for the tokenizer's.
    pub vocab: usize,
    /// Tokens per sample N.
    pub seq: usize,
    /// Longest sequence N_max, which the positions of the latents are spread over, and the number of learned positions; 0
    /// for N.
    pub max_seq: usize,
    /// Self-attention sees this many tokens, the current one included (k).
    pub window: usize,
    /// Latent vectors per layer K.
    pub latents: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f64,
    /// Base of the rotary positions' wavelengths.
    pub rope_theta: f64,
}

/// Fast learning: T steps on a sample's (μ, λ = log σ²) with the decoder frozen.
#[derive(Clone, Debug, PartialEq)]
pub struct FastConfig {
    /// Steps T per sample.
    pub steps: usize,
    /// Where the noise ε comes from.
    pub noise: Noise,
    /// The update rule.
    pub posterior: Posterior,
    /// Rate at the beginning of training.
    pub rate_start: f64,
    /// Rate at the end of training, reached linearly.
    pub rate_end: f64,
    /// The rate within a sample.
    pub schedule: Schedule,
    /// Decay of AdamW's first moment.
    pub beta1: f64,
    /// Decay of AdamW's second moment.
    pub beta2: f64,
    /// Added to the root of AdamW's second moment.
    pub eps: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// The part of the curvature that the natural gradient counts.
    pub damping: f64,
    /// Mean of the initial λ. The initial μ is 0.
    pub init_logvar: f64,
    /// Standard deviation of the initial λ.
    pub init_logvar_std: f64,
    /// Slow steps in which the weight of the KL in the fast steps' gradients rises linearly to 1; 0 for 1 from the start.
    pub kl_warmup: usize,
}

/// Slow learning: one AdamW step on the decoder's weights per batch; warm-up, then a cosine.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowConfig {
    /// Which gradient.
    pub gradient: SlowGradient,
    /// Rate after the warm-up.
    pub rate: f64,
    /// Rate at the last step.
    pub min_rate: f64,
    /// Steps in which the rate rises linearly from 0.
    pub warmup: usize,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, of matrices only.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; longer ones are scaled down to it.
    pub clip: f64,
}

/// How long, how much at a time, and what to keep.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// Samples per slow step B.
    pub batch: usize,
    /// Slow steps.
    pub steps: usize,
    /// Seed of weights, noise and the order of the data.
    pub seed: u64,
    /// Slow steps between evaluations; 0 for none but the last.
    pub eval_every: usize,
    /// Slow steps between checkpoints; 0 for none but the last.
    pub checkpoint_every: usize,
    /// Checkpoints kept, the newest ones.
    pub keep_checkpoints: usize,
    /// How activations are stored.
    pub precision: Precision,
    /// What to do when a number is not finite.
    pub non_finite: NonFinite,
    /// Threads; 0 for all cores. The results do not depend on it.
    pub threads: usize,
}

/// Where the text is and how it is cut.
#[derive(Clone, Debug, PartialEq)]
pub struct DataConfig {
    /// Files or folders to train on; none for the embedded corpus.
    pub paths: Vec<PathBuf>,
    /// Held-out data; if given, nothing is held out of `paths`.
    pub validation: Option<PathBuf>,
    /// Part of `paths` held out if there is no `validation`.
    pub validation_fraction: f64,
    /// How text becomes tokens.
    pub tokenizer: Tokenizer,
    /// How tokens become sequences.
    pub chunking: Chunking,
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

    /// How many positions there are, where they are learned; rotary ones have no end.
    pub fn positions(&self) -> Option<usize> {
        (self.kind == ModelKind::Gpt2).then(|| self.longest())
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            kind: ModelKind::Ltm,
            layers: 3,
            dim: 512,
            heads: 8,
            ffn: 0,
            vocab: Tokenizer::Gpt2.vocab(),
            seq: 1024,
            max_seq: 0,
            window: 256,
            latents: 8,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
        }
    }
}

impl Default for FastConfig {
    fn default() -> Self {
        Self {
            steps: 16,
            noise: Noise::Fresh,
            posterior: Posterior::Adamw,
            rate_start: 0.30,
            rate_end: 0.34,
            schedule: Schedule::Constant,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            damping: 0.25,
            init_logvar: -5.0,
            init_logvar_std: 0.1,
            kl_warmup: 0,
        }
    }
}

impl Default for SlowConfig {
    fn default() -> Self {
        Self {
            gradient: SlowGradient::Final,
            rate: 4e-4,
            min_rate: 4e-5,
            warmup: 1000,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
        }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch: 8,
            steps: 10_000,
            seed: 0,
            eval_every: 500,
            checkpoint_every: 500,
            keep_checkpoints: 3,
            precision: Precision::F32,
            non_finite: NonFinite::Stop,
            threads: 0,
        }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            validation: None,
            validation_fraction: 0.05,
            tokenizer: Tokenizer::Gpt2,
            chunking: Chunking::Windows,
        }
    }
}
