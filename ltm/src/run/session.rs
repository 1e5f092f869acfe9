use super::folder::{METRICS, MOMENTS, Run, STATE, State, WEIGHTS};
use super::metrics::{Line, SampleLine, StepLine, Trouble, ValidationLine, best};
use super::record::Record;
use super::stepper::Stepper;
use super::watch::Watch;
use super::{Material, NewFolder};
use crate::checkpoint;
use crate::config::{Config, TrainConfig};
use crate::generate::Writer;
use crate::json;
use crate::ranks;
use crate::train::{LOWER_RATES, StepReport};
use engine::{Collective, Device, Error, Result};
use std::sync::Arc;
use std::time::Instant;

/// Number of consecutive skipped updates that ends training: so many bad batches in a row are not an accident.
const PATIENCE: usize = 10;

/// Whether something that is due every so many steps, and at the end, is due after a step.
pub(super) fn is_due(train: &TrainConfig, step: u64, every: usize) -> bool {
    step >= train.steps as u64 || (every > 0 && step.is_multiple_of(every as u64))
}

/// A running session.
pub struct Session {
    /// The run's folder and settings.
    pub run: Run,
    stepper: Stepper,
    ranks: Arc<dyn Collective>,
    writer: Option<Writer>,
    /// Locked, so that no other process writes to the run.
    metrics: json::Lines,
    watch: Option<Watch>,
    /// The latest trouble. The same again is written, and not said once more.
    trouble: Option<Trouble>,
    fingerprint: String,
    /// Warnings at the start, one line each: validation text that is also training text, repeated training text, and
    /// samples that the device cannot generate.
    pub warnings: Vec<String>,
    saved: Option<u64>,
    best: Option<ValidationLine>,
    /// The latest validation.
    validated: Option<ValidationLine>,
    /// Number of consecutive skipped updates up to the last step.
    skipped: usize,
}

/// The result of a step.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The step.
    pub report: StepReport,
    /// How long it took.
    pub seconds: f64,
    /// The new lines of the metrics: the step, troubles, and the validation and the sample if due.
    pub lines: Vec<Line>,
    /// One line per problem that did not stop the run.
    pub warnings: Vec<String>,
}

impl Session {
    /// Starts a new run in `folder`, which is created after everything else is ready.
    ///
    /// # Errors
    /// If the folder cannot be written, or the device lacks kernels or memory for the configuration.
    pub fn begin(folder: &NewFolder, config: &Config, material: &Material, device: &Device) -> Result<Self> {
        let mut stepper = Stepper::new(config, material, device, None)?;
        let writer = stepper.writer(material)?;
        let (run, metrics) = Run::create(folder, config)?;
        Self::at(run, metrics, (stepper, writer), material, None)
    }

    /// The state after the newest intact checkpoint, or before the first step if there is none; and a line for each
    /// skipped checkpoint and each change of the GPU's software.
    ///
    /// # Errors
    /// If there are checkpoints but none is intact, the data differ from those at the start, the run has done more
    /// steps than its configuration has, or the device lacks kernels or memory.
    pub fn resume(run: &Run, material: &Material, device: &Device) -> Result<(Self, Vec<String>)> {
        let config = &run.config;
        // Lock first, because another running process may write newer checkpoints.
        let metrics = json::Lines::lock(&run.path.join(METRICS))?;
        // Otherwise records of another program version would be cut off like the remains of a crash.
        let records = Record::any(&run.path)?;
        let (checkpoint, mut warnings) = checkpoint::latest_valid(&run.path)?;
        warnings.extend(records.last().iter().flat_map(|last| last.warnings(device)));
        if let Some(checkpoint) = &checkpoint {
            let same = run.check_data(&State::of(checkpoint)?.data, &material.data);
            same.map_err(|error| error.hint("restore the old data, or start a new run"))?;
        }
        let saved = checkpoint.as_ref().map(|checkpoint| checkpoint.step);
        if let Some(step) = saved.filter(|&step| step > config.train.steps as u64) {
            return Err(Error::usage(format!("train.steps = {}: the run has already done {step}", config.train.steps)));
        }
        let mut stepper = Stepper::new(config, material, device, checkpoint.as_ref())?;
        let writer = stepper.writer(material)?;
        Ok((Self::at(run.clone(), metrics, (stepper, writer), material, saved)?, warnings))
    }

    fn at(
        run: Run,
        mut metrics: json::Lines,
        (stepper, writer): (Stepper, Option<Writer>),
        material: &Material,
        saved: Option<u64>,
    ) -> Result<Self> {
        let step = stepper.trainer.step;
        // Steps after the checkpoint will be repeated.
        let lines = metrics.cut(|line: &Line| line.step() <= step)?;
        Record::append(&run, step, material, &stepper.trainer.store.device)?;
        let mut watch = Watch::new(&run.config);
        if let Some(watch) = &mut watch {
            lines.iter().for_each(|line| _ = watch.line(line));
        }
        let fingerprint = material.data.fingerprint.clone();
        let repeated = material.seen.iter().chain(&material.repeated).cloned();
        let warnings = repeated.chain(stepper.no_samples()).collect();
        let best = best(&lines, &checkpoint::steps(&run.path)?).cloned();
        let validated = lines.iter().rev().find_map(|line| match line {
            Line::Validation(line) => Some(line.clone()),
            _ => None,
        });
        let steps = lines.iter().rev().filter_map(|line| match line {
            Line::Step(line) => Some(line),
            _ => None,
        });
        let skipped = steps.take_while(|line| line.skipped.is_some()).count();
        Ok(Self {
            run,
            stepper,
            ranks: material.ranks.clone(),
            writer,
            metrics,
            watch,
            trouble: None,
            fingerprint,
            warnings,
            saved,
            best,
            validated,
            skipped,
        })
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.stepper.trainer.step
    }

    /// Whether the last step failed because of a non-finite number and the state before it is saved.
    pub fn is_stopped(&self) -> bool {
        self.stepper.trainer.stopped && self.saved == Some(self.step())
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.step() >= self.run.config.train.steps as u64
    }

    /// Whether any of the processes that share the work has `asked`, as all of them call this before a step.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn asked_by_any(&self, asked: bool) -> Result<bool> {
        ranks::any(&*self.ranks, asked)
    }

    /// The validation with the least loss so far that has a checkpoint.
    pub fn best(&self) -> Option<&ValidationLine> {
        self.best.as_ref()
    }

    /// The latest validation.
    pub fn validated(&self) -> Option<&ValidationLine> {
        self.validated.as_ref()
    }

    /// Does the next step, then the validation, the sample and the checkpoint if due, and writes the metrics.
    ///
    /// # Errors
    /// If files cannot be written, or a number is not finite and the configuration says to stop; then the state before
    /// the step is saved, unless it also has non-finite numbers. Or if skipping updates does not help; then the state
    /// after the step is saved.
    pub fn advance(&mut self) -> Result<Progress> {
        let started = Instant::now();
        let report = self.stepper.step();
        if let (Err(error), step @ 1..) = (&report, self.step()) {
            self.check_finite()?;
            let failed = |second| Error::new(format!("{error}; and step {step} could not be saved: {second}"));
            self.save().map_err(failed)?;
        }
        let report = report?;
        self.skipped = if report.skipped.is_some() { self.skipped + 1 } else { 0 };
        let seconds = started.elapsed().as_secs_f64();
        let line = StepLine::new(&report, self.stepper.trainer.checksum(), seconds);
        let warnings = report.skipped.iter().cloned().collect();
        let mut progress = Progress { report, seconds, lines: Vec::new(), warnings };
        self.note(Line::Step(line), &mut progress)?;
        let train = &self.run.config.train;
        let due = |every| is_due(train, self.step(), every);
        let (validate, mut save) = (due(train.eval_every), due(train.checkpoint_every));
        let sample = train.sample_every > 0 && due(train.sample_every);
        if validate {
            // If validation fails, training continues or stops by its own numbers, as configured.
            match self.stepper.validate() {
                Ok(None) => {}
                Ok(Some(line)) => {
                    let loss = line.cost.loss;
                    if loss.is_finite() && self.best.as_ref().is_none_or(|best| loss < best.cost.loss) {
                        self.best = Some(line.clone());
                        save = true;
                    }
                    self.validated = Some(line.clone());
                    self.note(Line::Validation(line), &mut progress)?;
                }
                Err(error) => progress.warnings.push(format!("no validation after step {}: {error}", self.step())),
            }
        }
        if sample {
            self.sample(&mut progress)?;
        }
        let lost = self.skipped >= PATIENCE;
        if save || lost {
            progress.warnings.extend(self.save()?);
        }
        match &progress.report.skipped {
            Some(reason) if lost => Err(Error::new(format!(
                "{reason}; this happened in {} steps in a row, so skipping batches does not help: try {LOWER_RATES}",
                self.skipped
            ))),
            _ => Ok(progress),
        }
    }

    /// Generates a sample.
    fn sample(&mut self, progress: &mut Progress) -> Result<()> {
        let (step, Some(writer)) = (self.step(), &mut self.writer) else { return Ok(()) };
        match writer.whole(&mut self.stepper.trainer.store, None, 0) {
            Ok(sample) => self.note(Line::Sample(SampleLine { step, sample }), progress)?,
            // As with validations.
            Err(error) => progress.warnings.push(format!("no sample after step {step}: {error}")),
        }
        Ok(())
    }

    /// Writes a line of the metrics, followed by the warnings of the watch.
    fn note(&mut self, line: Line, progress: &mut Progress) -> Result<()> {
        self.metrics.write(&line)?;
        let trouble = self.watch.as_mut().and_then(|watch| watch.line(&line));
        progress.lines.push(line);
        if let Some(trouble) = trouble {
            if self.trouble.replace(trouble.trouble) != Some(trouble.trouble) {
                progress.warnings.push(trouble.message.clone());
            }
            let line = Line::Trouble(trouble);
            self.metrics.write(&line)?;
            progress.lines.push(line);
        }
        Ok(())
    }

    /// Checks that the current state is finite.
    fn check_finite(&self) -> Result<()> {
        self.stepper.trainer.check_finite().map_err(|error| match self.saved {
            Some(step) if step < self.step() => {
                error.hint(format_args!("the checkpoint of step {step} is older and unaffected"))
            }
            _ => error,
        })
    }

    /// Writes a checkpoint of the current state unless there is one; returns a line for each older one that could not
    /// be removed.
    ///
    /// # Errors
    /// If it cannot be written, or has a non-finite number; then the older ones are unchanged.
    pub fn save(&mut self) -> Result<Vec<String>> {
        let step = self.step();
        if self.saved == Some(step) {
            return Ok(Vec::new());
        }
        self.metrics.sync()?;
        let Stepper { lengths, .. } = &self.stepper;
        let (samples, data) = (self.stepper.samples(), self.fingerprint.clone());
        let state = State { step, samples, data, lengths: lengths.clone() };
        let trainer = &self.stepper.trainer;
        let files: [(&str, &checkpoint::FileWriter<'_>); 3] = [
            (WEIGHTS, &|out| trainer.write_weights(out)),
            (MOMENTS, &|out| trainer.write_moments(out)),
            (STATE, &|out| out.write_all(json::pretty(&state).as_bytes())),
        ];
        // The newest of those that are due, else of the others: the interval may have changed. And the best.
        let train = &self.run.config.train;
        let older = checkpoint::steps(&self.run.path)?.into_iter().filter(|&older| older < step).rev();
        let is_due = |&step: &u64| is_due(train, step, train.checkpoint_every);
        let (due, others): (Vec<u64>, Vec<u64>) = std::iter::once(step).chain(older).partition(is_due);
        let mut keep: Vec<u64> = due.into_iter().chain(others).take(train.keep_checkpoints).collect();
        keep.extend(self.best.as_ref().map(|best| best.step));
        let written = checkpoint::write(&self.run.path, step, &files, &keep);
        // If training has diverged or the run's folder has disappeared, report that instead of the file.
        let cause = || self.check_finite().and_then(|()| self.metrics.sync()).err();
        let warnings = written.map_err(|error| cause().unwrap_or(error))?;
        self.saved = Some(step);
        Ok(warnings)
    }
}
