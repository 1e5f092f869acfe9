//! The configuration of a run: plain typed values, set by dotted keys, checked as a whole.
//!
//! One table ([`Config::keys`]) drives setting, reading, JSON, help and the suggestions for misspelt keys. The defaults are
//! the preset `small`: Algorithm 1 (fresh noise, decoder gradient at the final posterior) with the paper's constants.
//! How to evaluate and generate is not part of it.

mod choices;
mod groups;
mod keys;
mod memory;
mod nearest;
mod presets;
mod validate;

pub use choices::{Choice, Chunking, Hoist, Noise, NonFinite, Posterior, Precision, Schedule, SlowGradient, Tokenizer};
pub use groups::{Config, DataConfig, FastConfig, ModelConfig, SlowConfig, TrainConfig};
pub use keys::Key;
pub use memory::Work;
pub use presets::{PRESETS, Preset};

/// The number of decoder weights (the tied embedding counted once; latents are not weights). `model.vocab` must be set.
pub fn parameter_count(model: &ModelConfig) -> usize {
    let (d, ffn) = (model.dim, model.ffn_hidden());
    // Two attentions of four square matrices, three feed-forward matrices, three norm gains; the final norm's gain.
    let layer = 8 * d * d + 3 * d * ffn + 3 * d;
    model.vocab * d + model.layers * layer + d
}

#[cfg(test)]
mod tests;
