//! The run folder: all output of a training run, and all input for resuming, evaluating and generating.
//!
//! ```text
//! config.json                      every setting, derived sizes filled in; names the tokenizer and the data
//! sessions.jsonl                   one line per start or resume, with everything needed to repeat it
//! suite.jsonl                      one line for every set and protocol that `ltm eval --suite` has finished
//! suite.jsonl.begun                the progress of sets that were interrupted
//! metrics.jsonl                    one line per step, validation, sample of text and trouble: [`Line`]
//! tensorboard/                     the metrics as an event file for TensorBoard, if wanted
//! checkpoints/step-00000500/       weights.safetensors, moments.safetensors, state.json, and a manifest with their hashes
//! ```
//!
//! A step depends only on the configuration, the data, the step number, and the previous weights and moments: its
//! samples are numbers `step × batch ..` of the data's order, and the noise is keyed by the step. So a resumed run
//! gives the same bits as an uninterrupted one, and there is no generator state to save.
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
//! let mut session = Session::begin(&NewFolder::at(path)?, &config, &material, &Device::CPU)?;
//! while !session.is_done() {
//!     session.advance()?;
//! }
//! session.save()?;
//!
//! // The records in the folder reproduce everything, bit for bit.
//! let stretch = Stretch::of(&Run::open(path)?, None)?;
//! let mut replay = Replay::new(&stretch, &material, &Device::CPU)?;
//! while let Some(step) = replay.advance()? {
//!     assert!(step.state && step.checkpoint == (step.step == 2));
//! }
//! # Ok::<(), engine::Error>(())
//! ```

mod folder;
mod follower;
mod loaded;
mod material;
mod metrics;
mod new_folder;
mod record;
mod replay;
mod session;
mod stepper;
#[cfg(test)]
mod tests;
mod watch;

pub use folder::{Choice, FREE_AT_RESUME, IMPORTED, Run};
pub use follower::Follower;
pub use loaded::Loaded;
pub use material::{Material, Open, REPORT_SEED, VALIDATION_SEED, stories};
pub use metrics::{Cost, Line, SampleLine, StepLine, Trouble, TroubleLine, ValidationLine};
pub use new_folder::NewFolder;
pub use record::{Data, DataFile, Machine, Program, Record, SOURCES};
pub use replay::{Repeated, Replay, Stretch};
pub use session::{Progress, Session};
pub use watch::ignored_kl;
