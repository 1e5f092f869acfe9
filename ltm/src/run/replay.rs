use super::folder::{MOMENTS, Run, WEIGHTS};
use super::record::{Data, Record};
use super::session::step_line;
use super::{Material, Metrics};
use crate::checkpoint::{self, Checkpoint};
use crate::config::{Config, Work};
use crate::data::{Batch, Order, Sampler};
use crate::hash::{Sha256, hex};
use crate::json::Value;
use crate::train::{StepReport, Trainer};
use engine::{Device, Error, Result};
use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;

/// What a step's line says about the clock.
const TIMES: [&str; 2] = ["seconds", "tokens_per_second"];

/// The checksum of weights and moments behind a step; a run on a GPU does not record it.
pub(super) const STATE_SUM: &str = "state";

/// Steps of a run that are to be repeated, and what is known about them.
#[derive(Debug)]
pub struct Stretch {
    run: Run,
    steps: RangeInclusive<u64>,
    /// Where the repetition begins; `None` for the initial weights.
    checkpoint: Option<Checkpoint>,
    /// What the metrics say about each step.
    lines: BTreeMap<u64, Value>,
    records: Vec<Record>,
}

/// A step that came out the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// Its number.
    pub step: u64,
    /// Whether weights and moments behind it were compared, by their checksum.
    pub state: bool,
    /// Whether they were compared with the run's checkpoint, byte for byte.
    pub checkpoint: bool,
}

impl Stretch {
    /// Steps `steps` of a run, or all that its metrics tell of. They will be repeated from the newest whole checkpoint
    /// before them; what lies between is repeated too.
    ///
    /// # Errors
    /// If the run has no such steps, or its folder does not say what it takes to repeat them.
    pub fn of(run: &Run, steps: Option<RangeInclusive<u64>>) -> Result<Self> {
        let mut lines = BTreeMap::new();
        Metrics::read(&run.metrics_path(), |line| {
            lines.extend(line.read("step", Value::as_u64).ok().map(|step| (step, line.clone())));
        })?;
        let path = run.path().display();
        let Some(&last) = lines.keys().next_back() else {
            return Err(Error::new(format!("{path} has done no step yet")));
        };
        let steps = steps.unwrap_or(1..=last);
        if steps.is_empty() || *steps.start() == 0 || *steps.end() > last {
            return Err(Error::usage(format!(
                "--steps {}..{}: {path} has steps 1..{last}, the first and the last included",
                steps.start(),
                steps.end()
            )));
        }
        let before = checkpoint::steps(run.path())?.into_iter().rev().filter(|step| step < steps.start());
        let checkpoint = before.filter_map(|step| checkpoint::at_step(run.path(), step).ok()).next();
        let first = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step) + 1;
        if let Some(missing) = (first..=*steps.end()).find(|step| !lines.contains_key(step)) {
            return Err(Error::new(format!("{path}: the metrics say nothing about step {missing}")));
        }
        let stretch = Self { run: run.clone(), steps, checkpoint, lines, records: Record::all(run.path())? };
        let then = stretch.record(first)?;
        for step in first..=*stretch.steps.end() {
            if stretch.record(step)?.config.train.precision != then.config.train.precision {
                return Err(Error::usage(format!(
                    "train.precision was changed before step {step}: repeat the steps before and from there on one after the other"
                )));
            }
        }
        Ok(stretch)
    }

    /// The steps.
    pub fn steps(&self) -> RangeInclusive<u64> {
        self.steps.clone()
    }

    /// The step behind which the repetition begins; 0 for the initial weights.
    pub fn begins_after(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step)
    }

    /// The settings of its first step.
    ///
    /// # Errors
    /// If the run's records say nothing about it.
    pub fn config(&self) -> Result<&Config> {
        Ok(&self.record(self.begins_after() + 1)?.config)
    }

    /// The record of the session that did a step: the last one that began before it.
    fn record(&self, step: u64) -> Result<&Record> {
        let found = self.records.iter().rev().find(|record| record.after < step);
        found.ok_or_else(|| {
            Error::new(format!("{}: no record of the session that did step {step}", self.run.path().display()))
        })
    }

    /// What of program, machine and device is not as it was, and can have a say in the bits: one line each.
    ///
    /// # Errors
    /// If the run's records say nothing about its steps.
    pub fn differences(&self, device: &Device) -> Result<Vec<String>> {
        let then = self.record(*self.steps.end())?;
        Ok(Record::new(0, &then.config, then.data.clone(), device).differences(then))
    }
}

/// Steps of a run being repeated.
pub struct Replay {
    stretch: Stretch,
    trainer: Trainer,
    sampler: Sampler,
    batch: Batch,
}

impl Replay {
    /// Takes up the state before the stretch.
    ///
    /// # Errors
    /// If the data are not those of the run, or the device has no kernels or no memory for it.
    pub fn new(stretch: Stretch, material: &Material, device: &Device) -> Result<Self> {
        let record = stretch.record(stretch.begins_after() + 1)?;
        let config = record.config.clone();
        if !Data::of(&material.fingerprint, &material.files)?.is(&record.data) {
            return Err(Error::new(
                "the data are not those that the run learnt from (their digests differ from those in its records): put the old ones back, or name them with --data",
            ));
        }
        let mut trainer = Trainer::new(config.clone(), device)?;
        config.check_room(&trainer.store, Work::Training)?;
        if let Some(checkpoint) = &stretch.checkpoint {
            trainer.restore(&checkpoint.file(WEIGHTS)?, &checkpoint.file(MOMENTS)?, checkpoint.step)?;
        }
        let sampler = Sampler::new(material.train.clone(), Order::Shuffled { seed: config.train.seed })?;
        let batch = Batch::new(config.train.batch, config.model.seq);
        Ok(Self { stretch, trainer, sampler, batch })
    }

    /// Repeats the next step and compares it; `None` when all are done.
    ///
    /// # Errors
    /// If it comes out differently: in what first, and how.
    pub fn advance(&mut self) -> Result<Option<Repeated>> {
        let step = self.trainer.step() + 1;
        if step > *self.stretch.steps.end() {
            return Ok(None);
        }
        // A later session may have moved the schedules' end.
        self.trainer.config = self.stretch.record(step)?.config.clone();
        self.sampler.fill((step - 1) * self.batch.samples.len() as u64, &mut self.batch)?;
        let report = self.trainer.train(&self.batch)?;
        let state = self.compare_line(&report)?;
        Ok(Some(Repeated { step, state, checkpoint: self.compare_checkpoint(step)? }))
    }

    /// Every number that the metrics have, by the text that reads back as the same bits. Whether weights and moments were
    /// among them.
    fn compare_line(&self, report: &StepReport) -> Result<bool> {
        let now = step_line(report, self.trainer.checksum(), f64::NAN);
        let has_state = |line: &Value| line.get(STATE_SUM).is_some();
        let then = &self.stretch.lines[&report.step];
        let both = has_state(then) && has_state(&now);
        for (key, then) in then.as_object()? {
            if TIMES.contains(&key.as_str()) || key == STATE_SUM && !both {
                continue;
            }
            let (now, then) = (now.get(key).map(ToString::to_string), then.to_string());
            if now.as_ref() != Some(&then) {
                return Err(Error::new(format!(
                    "step {} comes out differently: {key} was {then}, is {}",
                    report.step,
                    now.as_deref().unwrap_or("nothing")
                )));
            }
        }
        if now.get("skipped").is_some() != then.get("skipped").is_some() {
            return Err(Error::new(format!("step {} comes out differently: it was not left out", report.step)));
        }
        Ok(both)
    }

    /// Weights and moments against the run's checkpoint of a step, if there is one that is whole.
    fn compare_checkpoint(&self, step: u64) -> Result<bool> {
        let Ok(then) = checkpoint::at_step(self.stretch.run.path(), step) else { return Ok(false) };
        type Writer<'a> = &'a dyn Fn(&mut dyn io::Write) -> io::Result<()>;
        let files: [(&str, Writer<'_>); 2] =
            [(WEIGHTS, &|out| self.trainer.write_weights(out)), (MOMENTS, &|out| self.trainer.write_moments(out))];
        for (name, write) in files {
            let mut hash = Sha256::new();
            write(&mut hash).map_err(|e| Error::new(format!("cannot hash {name}: {e}")))?;
            let same = then.files.iter().any(|file| file.name == name && file.sha256 == hex(&hash.clone().finish()));
            if !same {
                return Err(Error::new(format!("step {step} comes out differently: {name} has other bytes")));
            }
        }
        Ok(true)
    }
}
