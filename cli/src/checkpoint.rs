//! Which checkpoint of a run a command works with.

use super::runs;
use engine::Result;
use ltm::run::{Choice, Run};
use std::path::Path;

/// One of a run's checkpoints.
#[derive(clap::Args)]
pub struct Checkpoint {
    /// The checkpoint: latest; best, which is the one with the least validation loss (that of a few batches, as metrics.jsonl
    /// has it with its draw_error); or that of a step, such as 400
    #[arg(long = "checkpoint", value_name = "latest|best|STEP", default_value = "latest")]
    pub choice: Choice,
}

impl Checkpoint {
    /// Opens a run at this checkpoint.
    pub fn open(&self, run: &Path) -> Result<Run> {
        Ok(Run { choice: self.choice, ..runs::open(run)? })
    }
}
