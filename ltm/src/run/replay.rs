use super::folder::{MOMENTS, Run, WEIGHTS};
use super::learner::Learner;
use super::record::{Data, Record};
use super::session::step_line;
use super::{Material, Metrics};
use crate::checkpoint::{self, Checkpoint};
use crate::config::Config;
use crate::data::{Batch, Order, Sampler};
use crate::hash::{Sha256, hex};
use crate::json::Value;
use crate::train::StepReport;
use engine::{Device, Error, Result};
use std::collections::{BTreeMap, BTreeSet};
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
    /// What they say about the validations behind steps.
    validations: BTreeMap<u64, Value>,
    /// The steps behind which the run has checkpoints.
    saved: BTreeSet<u64>,
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
        let (mut lines, mut validations) = (BTreeMap::new(), BTreeMap::new());
        Metrics::read_all(&run.metrics_path(), |line| {
            let Ok(step) = line.read("step", Value::as_u64) else { return };
            match line.get("protocol") {
                Some(_) => validations.insert(step, line.clone()),
                None if Metrics::is_step(line) => lines.insert(step, line.clone()),
                None => None,
            };
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
        let saved: BTreeSet<u64> = checkpoint::steps(run.path())?.into_iter().collect();
        let before = saved.range(..steps.start()).rev().copied();
        let checkpoint = before.filter_map(|step| checkpoint::at_step(run.path(), step).ok()).next();
        let first = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step) + 1;
        if let Some(missing) = (first..=*steps.end()).find(|step| !lines.contains_key(step)) {
            return Err(Error::new(format!("{path}: the metrics say nothing about step {missing}")));
        }
        let records = Record::all(run.path())?;
        let stretch = Self { run: run.clone(), steps, checkpoint, lines, validations, saved, records };
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
    learner: Learner,
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
        if !Data::of(material).is(&record.data) {
            return Err(Error::new(
                "the data are not those that the run learnt from (their digests differ from those in its records): put the old ones back, or name them with --data",
            ));
        }
        let mut learner = Learner::new(&config, material, device)?;
        if let Some(checkpoint) = &stretch.checkpoint {
            learner.trainer.restore(&checkpoint.file(WEIGHTS)?, &checkpoint.file(MOMENTS)?, checkpoint.step)?;
        }
        let sampler = Sampler::new(material.train.clone(), Order::Shuffled { seed: config.train.seed })?;
        let batch = Batch::new(config.train.batch, config.model.seq);
        Ok(Self { stretch, learner, sampler, batch })
    }

    /// Repeats the next step and compares it; `None` when all are done.
    ///
    /// # Errors
    /// If it comes out differently: in what first, and how.
    pub fn advance(&mut self) -> Result<Option<Repeated>> {
        let step = self.learner.trainer.step() + 1;
        if step > *self.stretch.steps.end() {
            return Ok(None);
        }
        // A later session may have moved the schedules' end.
        self.learner.trainer.config = self.stretch.record(step)?.config.clone();
        self.sampler.fill((step - 1) * self.batch.samples.len() as u64, &mut self.batch)?;
        let report = self.learner.trainer.train(&self.batch)?;
        let state = self.compare_line(&report)?;
        self.compare_validation(step)?;
        Ok(Some(Repeated { step, state, checkpoint: self.compare_checkpoint(step)? }))
    }

    /// Every number that the metrics have. Whether weights and moments were among them.
    fn compare_line(&self, report: &StepReport) -> Result<bool> {
        let now = step_line(report, self.learner.trainer.checksum(), f64::NAN);
        let has_state = |line: &Value| line.get(STATE_SUM).is_some();
        let then = &self.stretch.lines[&report.step];
        let both = has_state(then) && has_state(&now);
        same(&format!("step {}", report.step), then, &now, |key| TIMES.contains(&key) || key == STATE_SUM && !both)?;
        if now.get("skipped").is_some() != then.get("skipped").is_some() {
            return Err(Error::new(format!("step {} comes out differently: it was not left out", report.step)));
        }
        Ok(both)
    }

    /// Every number of the validation behind a step, if the metrics tell of one.
    fn compare_validation(&mut self, step: u64) -> Result<()> {
        let Some(then) = self.stretch.validations.get(&step) else { return Ok(()) };
        let validation = self.learner.validate()?;
        let now = validation.map_or(Value::Null, |validation| self.learner.line(&validation));
        same(&format!("the validation after step {step}"), then, &now, |_| false)
    }

    /// Weights and moments against the run's checkpoint of a step, if there is one. One that is damaged is not what the step
    /// left.
    fn compare_checkpoint(&self, step: u64) -> Result<bool> {
        if !self.stretch.saved.contains(&step) {
            return Ok(false);
        }
        let then = checkpoint::at_step(self.stretch.run.path(), step)?;
        type Writer<'a> = &'a dyn Fn(&mut dyn io::Write) -> io::Result<()>;
        let files: [(&str, Writer<'_>); 2] = [
            (WEIGHTS, &|out| self.learner.trainer.write_weights(out)),
            (MOMENTS, &|out| self.learner.trainer.write_moments(out)),
        ];
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

/// Every number of a line, by the text that reads back as the same bits.
fn same(what: &str, then: &Value, now: &Value, leave_out: impl Fn(&str) -> bool) -> Result<()> {
    for (key, then) in then.as_object()?.iter().filter(|(key, _)| !leave_out(key)) {
        let (now, then) = (now.get(key).map(ToString::to_string), then.to_string());
        if now.as_ref() != Some(&then) {
            let now = now.as_deref().unwrap_or("nothing");
            return Err(Error::new(format!("{what} comes out differently: {key} was {then}, is {now}")));
        }
    }
    Ok(())
}
