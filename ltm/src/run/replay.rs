use super::Material;
use super::folder::{MOMENTS, Run, WEIGHTS};
use super::metrics::{Line, StepLine};
use super::record::Record;
use super::session::Stepper;
use crate::checkpoint::{self, Checkpoint, FileWriter};
use crate::config::Config;
use engine::{Device, Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Steps of a run that are to be repeated, and what is known about them.
#[derive(Debug)]
pub struct Stretch {
    /// The steps.
    pub steps: RangeInclusive<u64>,
    /// The step behind which the repetition begins; 0 for the initial weights.
    pub after: u64,
    run: Run,
    checkpoint: Option<Checkpoint>,
    /// What the metrics say about each step, and about the validation behind it.
    lines: BTreeMap<u64, Vec<Line>>,
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
        let mut lines: BTreeMap<u64, Vec<Line>> = BTreeMap::new();
        for line in run.metrics()? {
            // The others follow from these, and samples from the weights.
            if matches!(line, Line::Step(_) | Line::Validation(_)) {
                lines.entry(line.step()).or_default().push(line);
            }
        }
        let path = run.path.display();
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
        let before = checkpoint::steps(&run.path)?.into_iter().rev().filter(|step| step < steps.start());
        let checkpoint = before.filter_map(|step| checkpoint::at_step(&run.path, step).ok()).next();
        let after = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step);
        let missing = |step: &u64| !lines.get(step).is_some_and(|lines| matches!(lines[0], Line::Step(_)));
        if let Some(missing) = (after + 1..=*steps.end()).find(missing) {
            return Err(Error::new(format!("{path}: the metrics say nothing about step {missing}")));
        }
        let records = Record::all(&run.path)?;
        if !records.iter().any(|record| record.after <= after) {
            return Err(Error::new(format!("{path}: no record of the session that did step {}", after + 1)));
        }
        let stretch = Self { steps, after, run: run.clone(), checkpoint, lines, records };
        let precision = |step| stretch.record(step).config.train.precision;
        if let Some(step) = (after + 1..=*stretch.steps.end()).find(|&step| precision(step) != precision(after + 1)) {
            return Err(Error::usage(format!(
                "train.precision was changed before step {step}: repeat the steps before and from there on one after the other"
            )));
        }
        Ok(stretch)
    }

    /// The settings of its first step.
    pub fn config(&self) -> &Config {
        &self.record(self.after + 1).config
    }

    /// The record of the session that did a step: the last one that began before it.
    fn record(&self, step: u64) -> &Record {
        let mut latest = self.records.iter().rev();
        latest.find(|record| record.after < step).expect("a record of the first step")
    }

    /// What of program, machine and device is not as it was, and can have a say in the bits: one line each.
    pub fn differences(&self, device: &Device) -> Vec<String> {
        self.record(*self.steps.end()).differences(device)
    }
}

/// Steps of a run being repeated.
pub struct Replay<'a> {
    stretch: &'a Stretch,
    stepper: Stepper,
}

impl<'a> Replay<'a> {
    /// Takes up the state before the stretch.
    ///
    /// # Errors
    /// If the data are not those of the run, or the device has no kernels or no memory for it.
    pub fn new(stretch: &'a Stretch, material: &Material, device: &Device) -> Result<Self> {
        let record = stretch.record(stretch.after + 1);
        let same = stretch.run.check_data(&record.data.fingerprint, &material.data);
        same.map_err(|error| error.hint("put the old ones back, or name them with --data"))?;
        let stepper = Stepper::new(&record.config, material, device, stretch.checkpoint.as_ref())?;
        Ok(Self { stretch, stepper })
    }

    /// Repeats the next step and compares it; `None` when all are done.
    ///
    /// # Errors
    /// If it comes out differently: in what first, and how.
    pub fn advance(&mut self) -> Result<Option<Repeated>> {
        let step = self.stepper.trainer.step + 1;
        if step > *self.stretch.steps.end() {
            return Ok(None);
        }
        // A later session may have moved the schedules' end.
        self.stepper.trainer.config = self.stretch.record(step).config.clone();
        let report = self.stepper.step()?;
        let line = StepLine::new(&report, self.stepper.trainer.checksum(), f64::NAN);
        let mut now = vec![Line::Step(line)];
        let then = &self.stretch.lines[&step];
        if then.len() > 1 {
            now.extend(self.stepper.validate()?.map(Line::Validation));
        }
        if then.len() != now.len() {
            let (then, now) = (then.len(), now.len());
            return Err(Error::new(format!(
                "step {step}: the metrics have {then} lines about it, its repetition {now}"
            )));
        }
        then.iter().zip(&now).try_for_each(|(then, now)| same(then, now))?;
        let state = then[0].entries().contains_key("state") && now[0].entries().contains_key("state");
        Ok(Some(Repeated { step, state, checkpoint: self.compare_checkpoint(step)? }))
    }

    /// Weights and moments against the run's checkpoint of a step, if there is one. One that is damaged is not what the step
    /// left.
    fn compare_checkpoint(&self, step: u64) -> Result<bool> {
        let path = &self.stretch.run.path;
        if !checkpoint::steps(path)?.contains(&step) {
            return Ok(false);
        }
        let then = checkpoint::at_step(path, step)?;
        let trainer = &self.stepper.trainer;
        let files: [(&str, &FileWriter<'_>); 2] =
            [(WEIGHTS, &|out| trainer.write_weights(out)), (MOMENTS, &|out| trainer.write_moments(out))];
        for (name, write) in files {
            let mut hash = Sha256::new();
            write(&mut hash).map_err(|e| Error::new(format!("cannot hash step {step}: {e}")))?;
            if then.entry(name)?.sha256 != format!("{:x}", hash.finalize()) {
                return Err(Error::new(format!("step {step} comes out differently: {name} has other bytes")));
            }
        }
        Ok(true)
    }
}

/// That a line of the metrics says what it said, to the last bit, but for the time that it took.
fn same(line: &Line, now: &Line) -> Result<()> {
    let validation = if matches!(line, Line::Validation(_)) { "the validation after " } else { "" };
    let mut now = now.entries();
    for (name, then) in line.entries() {
        let now = now.remove(&name).unwrap_or(Value::Null);
        // A GPU has no checksum of the state.
        let unknown = name == "state" && now.is_null();
        if now != then && !unknown && !["seconds", "tokens_per_second"].contains(&&*name) {
            let what = format!("{validation}step {}", line.step());
            return Err(Error::new(format!("{what} comes out differently: {name} was {then}, is {now}")));
        }
    }
    Ok(())
}
