//! Several processes that train one model.

use super::Material;
use super::record::{Machine, SOURCES};
use super::session::is_due;
use super::stepper::Stepper;
use crate::config::Config;
use crate::json;
use crate::ranks;
use engine::{Collective, Device, Result};
use std::sync::Arc;

/// Checks that all processes do the same: by their settings and the program, and by further `facts`.
///
/// # Errors
/// A usage error that names the first process which differs from process 0, and in what.
pub(super) fn agree(
    ranks: &dyn Collective,
    config: &Config,
    device: &Device,
    facts: &[(&'static str, String)],
) -> Result<()> {
    let mut settings = config.clone();
    // Files may lie elsewhere, their contents are compared; and threads change no result.
    settings.data.paths.clear();
    settings.data.validation = None;
    settings.train.threads = 0;
    let usual = [
        ("settings", json::line(&settings)),
        ("version of the program", SOURCES.into()),
        ("device", Machine::this(device).device),
    ];
    ranks::agree(ranks, &[&usual, facts].concat())
}

/// A process other than number 0 of a run: it computes its parts of every step and of every validation. Files, samples of text and
/// reports are those of process 0, the [`Session`](super::Session).
pub struct Follower {
    stepper: Stepper,
    ranks: Arc<dyn Collective>,
}

impl Follower {
    /// Joins the run that process 0 begins or continues.
    ///
    /// # Errors
    /// If processes differ, and those of [`Session::begin`](super::Session::begin).
    pub fn join(config: &Config, material: &Material, device: &Device) -> Result<Self> {
        let stepper = Stepper::new(config, material, device, None)?;
        Ok(Self { stepper, ranks: material.ranks.clone() })
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.stepper.trainer.step >= self.stepper.trainer.config.train.steps as u64
    }

    /// As [`Session::asked_by_any`](super::Session::asked_by_any).
    ///
    /// # Errors
    /// If a process is gone.
    pub fn asked_by_any(&self, asked: bool) -> Result<bool> {
        ranks::any(&*self.ranks, asked)
    }

    /// Does the next step, then the validation if due. `false` if a non-finite number stopped it, which process 0 reports.
    ///
    /// # Errors
    /// Of the data, and of the other processes.
    pub fn advance(&mut self) -> Result<bool> {
        match self.stepper.step() {
            Err(_) if self.stepper.trainer.stopped => return Ok(false),
            done => done?,
        };
        let train = &self.stepper.trainer.config.train;
        if is_due(train, self.stepper.trainer.step, train.eval_every) {
            // All have the same error, and process 0 reports it.
            _ = self.stepper.validate();
        }
        Ok(true)
    }
}
