//! The configuration of a run: plain typed values, set by dotted keys, checked as a whole.
//!
//! One table ([`Config::keys`]) drives setting, reading, JSON, help and the suggestions for misspelt keys. The defaults are
//! the preset `small`: Algorithm 1 (fresh noise, decoder gradient at the final posterior) with the paper's constants.
//! How to evaluate and generate is not part of it.
//!
//! ```
//! use ltm::config::{Config, Noise, parameter_count};
//!
//! let mut config = Config::preset("tiny")?;
//! config.set("fast.steps", "8")?;
//! config.set("fast.noise", "fixed")?;
//! assert_eq!((config.fast.steps, config.fast.noise), (8, Noise::Fixed));
//!
//! let error = config.set("fast.step", "8").unwrap_err().to_string();
//! assert!(error.contains("did you mean") && error.contains("fast.steps"), "{error}");
//!
//! // Derived sizes are filled in, and everything is checked.
//! let config = config.resolved()?;
//! assert_eq!((config.model.vocab, parameter_count(&config.model)), (258, 566_400));
//! assert_eq!(Config::from_json(&config.to_json())?, config);
//! # Ok::<(), engine::Error>(())
//! ```

mod choices;
mod device;
mod groups;
mod keys;
mod memory;
mod nearest;
mod presets;
mod validate;

pub use choices::{
    Choice, Chunking, ModelKind, Noise, NonFinite, Posterior, Precision, Schedule, SlowGradient, Tokenizer,
};
pub use groups::{Config, DataConfig, FastConfig, ModelConfig, SlowConfig, TrainConfig};
pub use keys::Key;
pub use memory::Work;
pub use nearest::nearest;
pub use presets::{PRESETS, Preset};

/// The number of decoder weights (the tied embedding counted once; latents are not weights). `model.vocab` must be set.
pub fn parameter_count(model: &ModelConfig) -> usize {
    let (d, ffn) = (model.dim, model.ffn_hidden());
    if let Some(positions) = model.positions() {
        // Attention: four square matrices and as many rows of biases. Feed-forward: two matrices with biases. Norms have two.
        let layer = (4 * d * d + 4 * d) + (2 * d * ffn + ffn + d) + 4 * d;
        return (model.vocab + positions) * d + model.layers * layer + 2 * d;
    }
    // Attention: four square matrices and a norm's gain, twice with latents. Feed-forward: three matrices and a gain.
    let attentions = if model.kind.has_latents() { 2 } else { 1 };
    let layer = attentions * (4 * d * d + d) + 3 * d * ffn + d;
    model.vocab * d + model.layers * layer + d
}

#[cfg(test)]
mod tests;
