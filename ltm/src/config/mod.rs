//! The configuration of a run: plain typed values, set by dotted keys, checked as a whole.
//!
//! One table (`table.rs`) holds every setting; the structs, their defaults, setting by key, files, help and the suggestions for
//! misspelt keys follow from it. The defaults are the preset `small`: Algorithm 1 (fresh noise, decoder gradient at the
//! final posterior) with the paper's constants. How to evaluate and generate is not part of it.
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
//! let file = serde_json::to_string(&config).unwrap();
//! assert_eq!(serde_json::from_str::<Config>(&file).unwrap(), config);
//! # Ok::<(), engine::Error>(())
//! ```

mod choices;
mod device;
mod nearest;
mod presets;
mod resolve;
mod setting;
mod table;

pub use choices::{
    Choice, Chunking, ModelKind, Noise, NonFinite, Posterior, Precision, Schedule, SlowGradient, Tokenizer,
};
pub use device::Work;
pub use nearest::nearest;
pub use presets::{PRESETS, Preset};
pub use resolve::parameter_count;
pub use setting::{Range, Setting};
pub use table::{Config, DataConfig, FastConfig, ModelConfig, SlowConfig, TrainConfig};

#[cfg(test)]
mod tests;
