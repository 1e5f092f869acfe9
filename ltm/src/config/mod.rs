//! The configuration of a run: plain typed values, set by dotted keys, checked as a whole.
//!
//! One table (`table.rs`) holds every setting; the structs, their defaults, setting by key, files, help and the
//! suggestions for misspelt keys follow from it. The defaults are the preset `small`: the paper's sizes, with the
//! natural gradient and Muon in place of the paper's AdamW, which `small-paper` has. Options of evaluation and generation
//! are not part of it.

mod choices;
mod device;
mod nearest;
mod presets;
mod resolve;
mod setting;
mod table;

pub use choices::{
    Choice, Chunking, Masking, ModelKind, Noise, NonFinite, Optimizer, Posterior, Precision, Schedule, SlowGradient,
    Tokenizer,
};
pub use device::Work;
pub use nearest::nearest;
pub use presets::{PRESETS, Preset};
pub use resolve::parameter_count;
pub use setting::{Range, Setting};
pub use table::{
    Config, CorpusConfig, DataConfig, DiffusionConfig, FastConfig, ModelConfig, SECTIONS, SETTINGS, SlowConfig,
    TrainConfig,
};

#[cfg(test)]
mod tests;
