//! Every setting, once: its meaning, key, type, default, and range.
//!
//! A row `name: Type = default, range;` in the section `section ("path")` is a field of the section's struct and the key `path.name`
//! of files and command lines; its sentence documents both.

use super::Range::{AtLeast, Fraction, MoreThan, Within};
use super::setting::{Kind, Setting};
use super::{
    Chunking, Masking, ModelKind, Noise, NonFinite, Optimizer, Posterior, Precision, Schedule, SlowGradient, Tokenizer,
};
use crate::diffusion;
use serde::Serialize;
use std::path::PathBuf;

/// Generates from the table below a struct per section with its defaults, [`Config`], [`SECTIONS`] and [`SETTINGS`].
macro_rules! table {
    ($($(#[doc = $about:literal])+ $section:ident ($path:literal): $Section:ident {
        $($(#[doc = $doc:literal])+ $name:ident: $Type:ty = $default:expr $(, $range:expr)?;)+
    })+) => {
        $($(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct $Section { $($(#[doc = $doc])+ pub $name: $Type,)+ }

        impl Default for $Section {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        })+

        /// Everything that a training run depends on, except the data.
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        pub struct Config { $($(#[doc = $about])+ #[serde(rename = $path)] pub $section: $Section,)+ }

        /// Every section and its topic.
        pub const SECTIONS: &[(&str, &str)] = &[$(($path, concat!($($about),+).trim_ascii())),+];

        /// Every setting, section by section.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            name: concat!($path, ".", stringify!($name)),
            doc: concat!($($doc),+).trim_ascii(),
            ranges: &[$($range)?],
            expects: <$Type>::expects,
            get: |config| serde_json::to_value(&config.$section.$name).unwrap_or_default(),
            put: |config, value| serde_json::from_value(value).map(|value| config.$section.$name = value).is_ok(),
        },)+)+];
    };
}

/// The limit of steps and updates, which are counted in 32 bits.
const STEPS: f64 = u32::MAX as f64;

/// The longest sequence.
const TOKENS: f64 = (1 << 24) as f64;

table! {
    /// Sizes of the decoder p(x | z).
    model ("model"): ModelConfig {
        /// The kind of decoder: ltm reads latents inferred for each text, ar-latent learned ones that are the same for every
        /// text, ar has none and no cross-attention; oracle reads a code of the facts of a story of the embedded corpus; mdlm,
        /// sedd and md4 are masked diffusion, which predicts masked tokens from both sides; gpt2 has GPT-2's layers.
        kind: ModelKind = ModelKind::Ltm;
        /// Layers L.
        layers: usize = 3, Within(1.0, 1024.0);
        /// Width d.
        dim: usize = 512, Within(2.0, 65_536.0);
        /// Attention heads H; d/H must be even.
        heads: usize = 8, Within(1.0, 32_768.0);
        /// Hidden size of the feed-forward part; 0 means 8d/3 rounded up to a multiple of 32, for ar as many weights as
        /// ltm has, and for gpt2 4d; the baselines of a demo or a sweep have as many weights in any case.
        ffn: usize = 0, Within(0.0, (1 << 18) as f64);
        /// Vocabulary V of the tied embedding and output; 0 for the tokenizer's.
        vocab: usize = Tokenizer::Gpt2.vocab(), Within(0.0, 65_536.0);
        /// Tokens per sample N.
        seq: usize = 1024, Within(1.0, TOKENS);
        /// Longest sequence N_max: the range of the latents' positions and of learned positions; 0 for N.
        max_seq: usize = 0, Within(0.0, TOKENS);
        /// Tokens that self-attention sees, the current one included.
        window: usize = 256, Within(1.0, TOKENS);
        /// Latent vectors per layer K.
        latents: usize = 8, Within(1.0, TOKENS);
        /// Number added to the mean square in every norm.
        norm_eps: f64 = 1e-5, MoreThan(0.0);
        /// Base of the rotary positions' wavelengths.
        rope_theta: f64 = 10_000.0, MoreThan(0.0);
    }

    /// Fast learning: T steps on a sample's (μ, λ = log σ²) with the decoder frozen.
    fast ("fast"): FastConfig {
        /// Fast steps T per sample; to train with antithetic noise, an even number.
        steps: usize = 16, Within(1.0, 65_535.0);
        /// The noise of the fast steps: fresh at every step, in pairs of opposite sign (antithetic), or fixed per sample.
        noise: Noise = Noise::Antithetic;
        /// The update of the posterior: by AdamW, or by the natural gradient.
        posterior: Posterior = Posterior::Natural;
        /// Fast rate at the beginning of training.
        rate_start: f64 = 0.30, AtLeast(0.0);
        /// Fast rate at the end of training, reached linearly.
        rate_end: f64 = 0.30, AtLeast(0.0);
        /// Fast rate within a sample: constant, falling by a cosine towards a tenth, or linearly to 0.05.
        schedule: Schedule = Schedule::Linear;
        /// Decay of the fast AdamW's first moment.
        beta1: f64 = 0.9, Fraction;
        /// Decay of the fast AdamW's second moment.
        beta2: f64 = 0.999, Fraction;
        /// Number added to the root of the fast AdamW's second moment.
        eps: f64 = 1e-8, MoreThan(0.0);
        /// Decoupled weight decay of the fast AdamW.
        weight_decay: f64 = 0.01, AtLeast(0.0);
        /// Mean of the initial λ; the initial μ is 0.
        init_logvar: f64 = 0.0, Within(-30.0, 30.0);
        /// Standard deviation of the initial λ.
        init_logvar_std: f64 = 0.1, AtLeast(0.0);
    }

    /// Slow learning: one step on the decoder's weights per batch, by Muon and AdamW; warm-up, then a cosine.
    slow ("slow"): SlowConfig {
        /// The decoder's update: by AdamW, or by Muon for the layers' matrices (Jordan and others, 2024, scaled as in
        /// arXiv 2502.16982) and AdamW for the rest.
        optimizer: Optimizer = Optimizer::Muon;
        /// The decoder's gradient: at the final posterior, or summed over all fast steps (trajectory).
        gradient: SlowGradient = SlowGradient::Final;
        /// Updates of the decoder per batch, each at another draw of the latents.
        updates: usize = 1, Within(1.0, 1024.0);
        /// Slow rate after the warm-up.
        rate: f64 = 4e-4, AtLeast(0.0);
        /// Slow rate at the last step.
        min_rate: f64 = 4e-5, AtLeast(0.0);
        /// Steps over which the slow rate rises linearly from 0.
        warmup: usize = 1000, Within(0.0, STEPS);
        /// Decay of the slow AdamW's first moment.
        beta1: f64 = 0.9, Fraction;
        /// Decay of the slow AdamW's second moment.
        beta2: f64 = 0.95, Fraction;
        /// Number added to the root of the slow AdamW's second moment.
        eps: f64 = 1e-8, MoreThan(0.0);
        /// Decoupled weight decay of the decoder's matrices.
        weight_decay: f64 = 0.1, AtLeast(0.0);
        /// Largest global norm of the gradient; larger gradients are scaled down.
        clip: f64 = 1.0, MoreThan(0.0);
    }

    /// Masked diffusion: the masks of mdlm, sedd and md4.
    diffusion ("diffusion"): DiffusionConfig {
        /// How a training step draws masks: a time for each text and then each token independently (bernoulli, the papers), or
        /// a number of masks for each text (count), which has the same expectation and less noise.
        masking: Masking = Masking::Bernoulli;
        /// The probability a(t) of a mask at time t: linear, cosine (sin πt/2), or a power of t such as poly2; the bound of
        /// mdlm, which is not told the time, does not depend on it.
        schedule: diffusion::Schedule = diffusion::Schedule::Linear;
    }

    /// The run: how long, how much at a time, and what to keep.
    train ("train"): TrainConfig {
        /// Samples per step B.
        batch: usize = 8, Within(1.0, 65_535.0);
        /// Samples computed at once, to save memory; 0 for the whole batch, which must be a power of two times as many.
        micro: usize = 0, Within(0.0, 65_535.0);
        /// Number of training steps.
        steps: usize = 10_000, Within(1.0, STEPS);
        /// Seed of the weights, the noise and the order of the data.
        seed: u64 = 0;
        /// Steps between validations, with the checkpoint of the best one kept; 0 for one at the end.
        eval_every: usize = 500;
        /// Steps between samples of generated text, with one at the end; 0 for none.
        sample_every: usize = 0;
        /// Steps between checkpoints; 0 for one at the end.
        checkpoint_every: usize = 500;
        /// Number of newest checkpoints to keep, of those due by `train.checkpoint_every` and at the end; that of the best
        /// validation stays too.
        keep_checkpoints: usize = 3, AtLeast(1.0);
        /// Type of the factors of products, and on a GPU of stored activations.
        precision: Precision = Precision::F32;
        /// On a non-finite loss or gradient: stop the run, or skip the update.
        non_finite: NonFinite = NonFinite::Stop;
        /// Number of threads, which does not affect results; 0 for all cores.
        threads: usize = 0, Within(0.0, 4096.0);
    }

    /// The corpus: the files and how they are cut into sequences.
    data ("data"): DataConfig {
        /// Files or folders of training text; none for the embedded corpus.
        paths: Vec<PathBuf> = Vec::new();
        /// File or folder of validation text; none to hold out a part of the training text.
        validation: Option<PathBuf> = None;
        /// Fraction of `data.paths` held out as validation text if `data.validation` is empty.
        validation_fraction: f64 = 0.05, Fraction;
        /// The tokenizer.
        tokenizer: Tokenizer = Tokenizer::Gpt2;
        /// How tokens become sequences: windows of N tokens, or one document each.
        chunking: Chunking = Chunking::Windows;
    }

    /// The embedded corpus of small stories, if `data.paths` is empty.
    corpus ("data.corpus"): CorpusConfig {
        /// Length of a story in bytes, a sentence of some 28 bytes more at most; 0 for stories that fill a sequence.
        bytes: usize = 0, Within(0.0, TOKENS);
        /// Mean number of mentions of a fact in a story, reached by sentences without facts; 0 for facts in every sentence.
        mentions: f64 = 0.0, AtLeast(0.0);
        /// Number of values of every fact.
        values: usize = 16, Within(2.0, 16.0);
    }
}
