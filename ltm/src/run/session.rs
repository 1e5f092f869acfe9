use super::folder::{MOMENTS, Run, STATE, WEIGHTS, fingerprint};
use super::learner::Learner;
use super::record::{Data, Record};
use super::replay::STATE_SUM;
use super::{Material, Metrics, Trouble, Validated, Validation, Watch};
use crate::checkpoint;
use crate::config::Config;
use crate::data::{Batch, Order, Sampler};
use crate::json::Value;
use crate::train::StepReport;
use engine::{Device, Error, Result};
use std::path::Path;
use std::time::Instant;

/// A run under way.
pub struct Session {
    run: Run,
    learner: Learner,
    sampler: Sampler,
    batch: Batch,
    metrics: Metrics,
    watch: Option<Watch>,
    fingerprint: String,
    saved: Option<u64>,
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The step.
    pub report: StepReport,
    /// How long it took.
    pub seconds: f64,
    /// The validation that was due behind it.
    pub validation: Option<Validation>,
    /// One line for everything that went wrong and did not stop the run.
    pub warnings: Vec<String>,
}

impl Session {
    /// The beginning of a new run in the folder at `path`, which is made when everything else stands.
    ///
    /// # Errors
    /// Those of [`Run::create`], and a configuration that the device has no kernels or no memory for.
    pub fn begin(path: &Path, config: &Config, material: &Material, device: &Device) -> Result<Self> {
        Run::check_new(path)?;
        let learner = Learner::new(config, material, device)?;
        Self::at(Run::create(path, config)?, learner, material, None)
    }

    /// The state after the newest checkpoint that is whole, or the first step's beginning if the folder has none; and a line
    /// for each checkpoint that had to be skipped.
    ///
    /// # Errors
    /// If no checkpoint of several is whole, the data are not those that the run began with, the run has done more
    /// steps than its configuration asks for, or the device has no kernels or no memory for it.
    pub fn resume(run: &Run, material: &Material, device: &Device) -> Result<(Self, Vec<String>)> {
        let config = run.config();
        let (checkpoint, warnings) = run.newest()?;
        let mut learner = Learner::new(config, material, device)?;
        let trainer = &mut learner.trainer;
        if let Some(checkpoint) = &checkpoint {
            let data = fingerprint(checkpoint)?;
            if data != material.fingerprint {
                return Err(Error::new(format!(
                    "the data have changed since the run began (checksum {data}, now {}): put the old ones back, or begin a new run",
                    material.fingerprint
                )));
            }
            trainer.restore(&checkpoint.file(WEIGHTS)?, &checkpoint.file(MOMENTS)?, checkpoint.step)?;
        }
        let step = trainer.step();
        if step > config.train.steps as u64 {
            return Err(Error::usage(format!("train.steps = {}: the run has done {step} already", config.train.steps)));
        }
        let saved = checkpoint.map(|checkpoint| checkpoint.step);
        Ok((Self::at(run.clone(), learner, material, saved)?, warnings))
    }

    fn at(run: Run, learner: Learner, material: &Material, saved: Option<u64>) -> Result<Self> {
        let trainer = &learner.trainer;
        let metrics = Metrics::open(&run.metrics_path(), trainer.step())?;
        let config = run.config();
        let data = Data::of(material);
        Record::new(trainer.step(), config, data, trainer.store.device()).write(run.path())?;
        let mut watch = Watch::new(config);
        if let Some(watch) = &mut watch {
            metrics.all(|line| _ = watch_line(watch, line, config.train.batch))?;
        }
        let sampler = Sampler::new(material.train.clone(), Order::Shuffled { seed: config.train.seed })?;
        let batch = Batch::new(config.train.batch, config.model.seq);
        let fingerprint = material.fingerprint.clone();
        Ok(Self { run, learner, sampler, batch, metrics, watch, fingerprint, saved })
    }

    /// From here on writes the metrics as event files for TensorBoard too, in the run's folder `tensorboard`. Where there are
    /// none yet, the steps so far come first.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write_events(&mut self) -> Result<()> {
        self.metrics.mirror(&self.run.events_path(), self.step())
    }

    /// The run's folder and settings.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.learner.trainer.step()
    }

    /// Whether there is a checkpoint of the present state.
    pub fn is_saved(&self) -> bool {
        self.saved == Some(self.step())
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.step() >= self.run.config().train.steps as u64
    }

    /// Does the next step, then the validation and the checkpoint that are due behind it, and writes the metrics.
    ///
    /// # Errors
    /// If samples cannot be read, files cannot be written, or a number is not finite and the configuration says to stop;
    /// the state before the step is then saved.
    pub fn advance(&mut self) -> Result<Progress> {
        let started = Instant::now();
        let first = self.learner.trainer.step() * self.batch.samples.len() as u64;
        self.sampler.fill(first, &mut self.batch)?;
        let report = match self.learner.trainer.train(&self.batch) {
            Ok(report) => report,
            Err(error) if self.step() == 0 => return Err(error),
            Err(error) => {
                let step = self.step();
                return Err(match self.save() {
                    Ok(_) => error,
                    Err(second) => Error::new(format!("{error}; and step {step} could not be saved: {second}")),
                });
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        let line = step_line(&report, self.learner.trainer.checksum(), seconds);
        self.metrics.write(&line)?;
        let mut progress =
            Progress { warnings: report.skipped.clone().into_iter().collect(), report, seconds, validation: None };
        progress.warnings.extend(self.watched(&line)?);
        let train = &self.run.config().train;
        let (eval_every, checkpoint_every) = (train.eval_every as u64, train.checkpoint_every as u64);
        let due = |every: u64| self.is_done() || (every > 0 && self.step().is_multiple_of(every));
        let (validate, save) = (due(eval_every), due(checkpoint_every));
        if validate {
            // A model that cannot be validated stops by its own numbers or goes on, as the configuration says.
            match self.learner.validate() {
                Ok(validation) => {
                    if let Some(line) = validation.as_ref().map(|validation| self.learner.line(validation)) {
                        self.metrics.write(&line)?;
                        progress.warnings.extend(self.watched(&line)?);
                    }
                    progress.validation = validation;
                }
                Err(error) => progress.warnings.push(format!("no validation after step {}: {error}", self.step())),
            }
        }
        if save {
            progress.warnings.extend(self.save()?);
        }
        Ok(progress)
    }

    /// Shows a line of the metrics to the watch; what it has to say is written behind that line, and returned.
    fn watched(&mut self, line: &Value) -> Result<Option<String>> {
        let batch = self.batch.samples.len();
        let Some(trouble) = self.watch.as_mut().and_then(|watch| watch_line(watch, line, batch)) else {
            return Ok(None);
        };
        self.metrics.write(&trouble_line(self.step(), trouble))?;
        Ok(Some(trouble.to_string()))
    }

    /// Writes a checkpoint of the present state unless there is one; returns a line for each older one that could not be
    /// removed.
    ///
    /// # Errors
    /// If it cannot be written; the older ones are then as they were.
    pub fn save(&mut self) -> Result<Vec<String>> {
        let step = self.learner.trainer.step();
        if self.saved == Some(step) {
            return Ok(Vec::new());
        }
        self.metrics.sync()?;
        let state = Value::object([
            ("step", step.into()),
            ("samples", (step * self.batch.samples.len() as u64).into()),
            ("data", self.fingerprint.as_str().into()),
        ])
        .pretty();
        let trainer = &self.learner.trainer;
        let files: [(&str, &checkpoint::FileWriter<'_>); 3] = [
            (WEIGHTS, &|out| trainer.write_weights(out)),
            (MOMENTS, &|out| trainer.write_moments(out)),
            (STATE, &|out| out.write_all(state.as_bytes())),
        ];
        let written = checkpoint::write(self.run.path(), step, &files, self.run.config().train.keep_checkpoints)?;
        self.saved = Some(step);
        Ok(written.warnings)
    }
}

/// A step's line. `state` is the trainer's checksum behind it.
pub(super) fn step_line(report: &StepReport, state: Option<u64>, seconds: f64) -> Value {
    let tokens = report.tokens as f64;
    let mut line = vec![
        ("step", report.step.into()),
        ("loss", report.loss().into()),
        ("nll", (report.nll / tokens).into()),
        ("kl", (report.kl / tokens).into()),
        ("bits_per_byte", report.bits_per_byte().into()),
        ("tokens", report.tokens.into()),
        ("grad_norm", report.grad_norm.into()),
        ("rate", report.rate.into()),
        ("fast_rate", report.fast_rate.into()),
        ("seconds", seconds.into()),
        ("tokens_per_second", (tokens / seconds).into()),
    ];
    line.extend(state.map(|sum| (STATE_SUM, format!("{sum:016x}").into())));
    line.extend(report.skipped.as_ref().map(|reason| ("skipped", reason.as_str().into())));
    Value::object(line)
}

/// Shows the watch a step or a validation as the metrics have it: what it hears is the same when a run goes on. A step without
/// numbers says nothing.
fn watch_line(watch: &mut Watch, line: &Value, batch: usize) -> Option<Trouble> {
    let number = |key: &str| line.read(key, Value::as_f64).ok().filter(|x| x.is_finite());
    let step = line.read("step", Value::as_u64).ok()?;
    if line.get("protocol").is_some() {
        // Nats per sequence over nats per token are the tokens of a sequence.
        let (loss, error) = (number("loss")?, number("draw_error")?);
        let kl = number("kl")? * number("nats_per_sequence")? / loss;
        return watch.validation(Validated { step, kl, loss, error });
    }
    watch.step(step, number("kl")? * number("tokens")? / batch as f64, number("loss")?)
}

fn trouble_line(step: u64, trouble: Trouble) -> Value {
    Value::object([("step", step.into()), ("trouble", trouble.name().into()), ("message", trouble.to_string().into())])
}
