//! Several processes that train one model.

use super::Material;
use super::record::{Machine, SOURCES};
use super::session::is_due;
use super::stepper::Stepper;
use crate::config::Config;
use crate::data::checksum::checksum;
use crate::json;
use engine::{Collective, Device, Error, Result};
use std::sync::Arc;

/// Checks that all processes do the same.
///
/// # Errors
/// A usage error that names the first process which differs from process 0, and in what.
pub(super) fn agree(config: &Config, material: &Material, device: &Device) -> Result<()> {
    let mut settings = config.clone();
    // Files may lie elsewhere, their contents are compared; and threads change no result.
    settings.data.paths.clear();
    settings.data.validation = None;
    settings.train.threads = 0;
    let facts = [
        ("settings", json::line(&settings)),
        ("version of the program", SOURCES.into()),
        ("data", material.data.fingerprint.clone()),
        ("device", Machine::this(device).device),
    ];
    let own = facts.each_ref().map(|(_, text)| checksum(text.as_bytes()));
    let all = material.ranks.gather(&own)?;
    for (rank, other) in all.chunks(own.len()).enumerate() {
        if let Some(i) = (0..own.len()).find(|&i| other[i] != all[i]) {
            return Err(Error::usage(format!("process {rank} differs from process 0 in its {}", facts[i].0)));
        }
    }
    Ok(())
}

/// Whether any of the processes has `asked`.
pub(super) fn asked_by_any(ranks: &dyn Collective, asked: bool) -> Result<bool> {
    Ok(ranks.gather(&[asked.into()])?.contains(&1))
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
        asked_by_any(&*self.ranks, asked)
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
