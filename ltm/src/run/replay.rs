use super::Material;
use super::folder::{MOMENTS, Run, WEIGHTS};
use super::metrics::{Line, StepLine};
use super::record::Record;
use super::stepper::Stepper;
use crate::checkpoint::{self, Checkpoint, FileWriter};
use crate::config::Config;
use engine::{Device, Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Steps of a run to repeat, with their records.
#[derive(Debug)]
pub struct Stretch {
    /// The steps.
    pub steps: RangeInclusive<u64>,
    /// The step after which the repetition begins; 0 for the initial weights.
    pub after: u64,
    run: Run,
    checkpoint: Option<Checkpoint>,
    /// The metrics of each step, and of the validation after it.
    lines: BTreeMap<u64, Vec<Line>>,
    records: Vec<Record>,
}

/// A step that was repeated with the same result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// Its number.
    pub step: u64,
    /// Whether weights and moments after it were compared by checksum.
    pub state: bool,
    /// Whether they were compared with the run's checkpoint, byte for byte.
    pub checkpoint: bool,
}

impl Stretch {
    /// Steps `steps` of a run, or all steps in its metrics. They are repeated from the newest intact checkpoint before
    /// them, together with the steps in between.
    ///
    /// # Errors
    /// If the run has no such steps, or its records are incomplete.
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
            return Err(Error::new(format!("{path} has no steps yet")));
        };
        let steps = steps.unwrap_or(1..=last);
        if steps.is_empty() || *steps.start() == 0 || *steps.end() > last {
            return Err(Error::usage(format!(
                "--steps {}..{}: {path} has steps 1..{last}; both ends are included",
                steps.start(),
                steps.end()
            )));
        }
        let before = checkpoint::steps(&run.path)?.into_iter().rev().filter(|step| step < steps.start());
        let checkpoint = before.filter_map(|step| checkpoint::at_step(&run.path, step).ok()).next();
        let after = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step);
        let missing = |step: &u64| !lines.get(step).is_some_and(|lines| matches!(lines[0], Line::Step(_)));
        if let Some(missing) = (after + 1..=*steps.end()).find(missing) {
            return Err(Error::new(format!("{path}: the metrics have no step {missing}")));
        }
        let records = Record::all(&run.path)?;
        if !records.iter().any(|record| record.after <= after) {
            return Err(Error::new(format!("{path}: no record of the session that did step {}", after + 1)));
        }
        let stretch = Self { steps, after, run: run.clone(), checkpoint, lines, records };
        let precision = |step| stretch.record(step).config.train.precision;
        if let Some(step) = (after + 1..=*stretch.steps.end()).find(|&step| precision(step) != precision(after + 1)) {
            return Err(Error::usage(format!(
                "train.precision was changed before step {step}: repeat the steps before it and the steps from it on \
                 separately"
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

    /// The differences of program, machine and device that may change bits, one line each.
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
    /// Loads the state before the stretch.
    ///
    /// # Errors
    /// If the data are not those of the run, or the device lacks kernels or memory.
    pub fn new(stretch: &'a Stretch, material: &Material, device: &Device) -> Result<Self> {
        let record = stretch.record(stretch.after + 1);
        let same = stretch.run.check_data(&record.data.fingerprint, &material.data);
        same.map_err(|error| error.hint("restore the old data, or name them with --data"))?;
        let stepper = Stepper::new(&record.config, material, device, stretch.checkpoint.as_ref())?;
        Ok(Self { stretch, stepper })
    }

    /// Repeats the next step and compares it; `None` when all are done.
    ///
    /// # Errors
    /// If a number differs; the error names the first difference.
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
                "step {step}: the metrics have {then} lines for it, but the repetition has {now}"
            )));
        }
        then.iter().zip(&now).try_for_each(|(then, now)| same(then, now))?;
        let state = then[0].entries().contains_key("state") && now[0].entries().contains_key("state");
        Ok(Some(Repeated { step, state, checkpoint: self.compare_checkpoint(step)? }))
    }

    /// Compares weights and moments with the run's checkpoint of a step, if there is one. A damaged checkpoint counts
    /// as a difference.
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
                return Err(Error::new(format!("step {step} differs: {name} has other bytes")));
            }
        }
        Ok(true)
    }
}

/// Checks that a line of the metrics is the same to the last bit, except for times.
fn same(line: &Line, now: &Line) -> Result<()> {
    let validation = if matches!(line, Line::Validation(_)) { "the validation after " } else { "" };
    let mut now = now.entries();
    for (name, then) in line.entries() {
        let now = now.remove(&name).unwrap_or(Value::Null);
        // A GPU has no checksum of the state.
        let unknown = name == "state" && now.is_null();
        if now != then && !unknown && !["seconds", "tokens_per_second"].contains(&&*name) {
            let what = format!("{validation}step {}", line.step());
            return Err(Error::new(format!("{what} differs: {name} was {then}, is {now}")));
        }
    }
    Ok(())
}
