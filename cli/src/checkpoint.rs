//! The checkpoint of a run that a command uses.

use super::runs;
use engine::Result;
use ltm::run::{Choice, Run};
use std::path::Path;

/// One of a run's checkpoints.
#[derive(clap::Args)]
pub struct Checkpoint {
    /// Checkpoint to use: latest; best, the one with the least validation loss (of a few batches; see metrics.jsonl and
    /// its draw_error); or the one of a step, such as 400
    #[arg(long = "checkpoint", value_name = "latest|best|STEP", default_value = "latest")]
    pub choice: Choice,
}

impl Checkpoint {
    /// Opens a run at this checkpoint.
    pub fn open(&self, run: &Path) -> Result<Run> {
        Ok(Run { choice: self.choice, ..runs::open(run)? })
    }
}
