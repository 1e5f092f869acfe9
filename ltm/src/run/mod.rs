//! The run folder: everything that a training run leaves behind, and all that going on with it, judging it or generating
//! from it needs.
//!
//! ```text
//! config.json                      every setting, derived sizes filled in; names the tokenizer and the data
//! sessions.jsonl                   one line each time that it is begun or gone on with: all that it takes to repeat it
//! suite.jsonl                      one line for every set and protocol that `ltm eval --suite` has finished
//! suite.jsonl.begun                how far it has come with those that an interrupt cut short
//! metrics.jsonl                    one line a step, one for every validation, sample of text and trouble: [`Line`]
//! tensorboard/                     what the metrics say, as an event file for TensorBoard, if it was asked for
//! checkpoints/step-00000500/       weights.safetensors, moments.safetensors, state.json, and a manifest that vouches for them
//! ```
//!
//! A step is a function of the configuration, the data, the step's number and what the step before left in weights and
//! moments: the samples are numbers `step × batch ..` of the data's order and the noise is keyed by the step. So a run that
//! goes on from a checkpoint is bit for bit the run that was never stopped, and no generator's state has to be kept.
//!
//! ```
//! use engine::Device;
//! use ltm::config::Config;
//! use ltm::data::{Bytes, Dataset, Tokenizer};
//! use ltm::run::{Material, NewFolder, Replay, Run, Session, Stretch};
//! use std::sync::Arc;
//!
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let path = &folder.path().join("run");
//! let mut config = Config::preset("demo")?;
//! config.set_all("model.dim=16 model.heads=2 fast.steps=2 train.steps=2")?;
//! let config = config.resolved()?;
//! let bytes: Arc<dyn Tokenizer> = Arc::new(Bytes);
//! let material = Material::open(&config, &|path, split| Dataset::open(path, split, &bytes))?;
//!
//! let mut session = Session::begin(&NewFolder::at(path)?, &config, &material, &Device::Cpu)?;
//! while !session.is_done() {
//!     session.advance()?;
//! }
//! session.save()?;
//!
//! // From what the folder has recorded all of it comes out again, bit for bit.
//! let stretch = Stretch::of(&Run::open(path)?, None)?;
//! let mut replay = Replay::new(&stretch, &material, &Device::Cpu)?;
//! while let Some(step) = replay.advance()? {
//!     assert!(step.state && step.checkpoint == (step.step == 2));
//! }
//! # Ok::<(), engine::Error>(())
//! ```

mod folder;
mod material;
mod metrics;
mod record;
mod replay;
mod session;
#[cfg(test)]
mod tests;
mod watch;

pub use folder::{Choice, FREE_AT_RESUME, IMPORTED, Loaded, NewFolder, Run};
pub use material::{Material, Open, VALIDATION_SEED, validation_stories};
pub use metrics::{Cost, Line, SampleLine, StepLine, Trouble, TroubleLine, ValidationLine};
pub use record::{Data, DataFile, Machine, Program, Record, SOURCES};
pub use replay::{Repeated, Replay, Stretch};
pub use session::{Progress, Session};
