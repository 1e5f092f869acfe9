//! A sweep under way: one point after the other, and a record of each.

use super::super::eval::warn;
use super::super::interrupt::{CODE, Guard};
use super::super::output::{command, note, print};
use super::super::progress::bar;
use super::super::train;
use super::{price, results};
use engine::{Device, Error, Result};
use lab::sweep::{Judgement, Ledger, Outcome, Point, Sweep, Trained};
use ltm::config::{Config, Work};
use ltm::evaluate::Evaluator;
use ltm::run::{Material, NewFolder, Run, Session, validation_stories};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// The file of results in a sweep's folder.
const RESULTS: &str = "sweep.jsonl";

pub struct Sweeping<'a> {
    sweep: &'a Sweep,
    ledger: Ledger,
    out: &'a Path,
    device: &'a Device,
    guard: Guard,
}

/// What became of an attempt.
enum Done {
    /// It was finished before.
    Kept(Outcome),
    Finished(Outcome),
    /// Its run is saved as far as it came.
    Interrupted,
}

impl<'a> Sweeping<'a> {
    /// Begins, or goes on with, the sweep in the folder `out`.
    ///
    /// # Errors
    /// If results cannot be kept there, or another process keeps its own.
    pub fn new(sweep: &'a Sweep, out: &'a Path, device: &'a Device) -> Result<Self> {
        Ok(Self { sweep, ledger: Ledger::open(&out.join(RESULTS))?, out, device, guard: Guard::new()? })
    }

    /// Does what is left of `points`, then shows everything.
    ///
    /// # Errors
    /// If results cannot be kept. What is wrong with a point is in its record.
    pub fn all(mut self, points: &[Point]) -> Result<ExitCode> {
        let mut outcomes = Vec::new();
        for (number, point) in (1..).zip(points) {
            if self.guard.asked() {
                break;
            }
            note(format_args!("point {number}/{}: {}", points.len(), point.name));
            let done = match self.attempt(point) {
                Ok(done) => done,
                Err(error) => {
                    note(format_args!("{} failed: {error}", point.name));
                    let failed = Outcome::failed(point, &command(), &error)?;
                    self.ledger.write(&failed)?;
                    outcomes.push(failed);
                    continue;
                }
            };
            match done {
                Done::Kept(outcome) => {
                    note(format_args!("{}: kept from {}", point.name, self.out.join(RESULTS).display()));
                    outcomes.push(outcome);
                }
                Done::Finished(outcome) => {
                    self.ledger.write(&outcome)?;
                    outcomes.push(outcome);
                }
                Done::Interrupted => break,
            }
        }
        results::write(self.out, &outcomes)?;
        print(results::text(&outcomes))?;
        if outcomes.len() < points.len() {
            note(format_args!(
                "interrupted with {} of {} points done; the same command goes on",
                outcomes.len(),
                points.len()
            ));
            return Ok(ExitCode::from(CODE));
        }
        print(format_args!("\nresults, table and figures: {}", self.out.display()))?;
        let failed = outcomes.iter().any(|outcome| outcome.reason().is_some());
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Trains and judges a point, as far as that is left to do.
    fn attempt(&self, point: &Point) -> Result<Done> {
        let config = point.config.as_ref().map_err(Clone::clone)?;
        let material = lab::text::material(config)?;
        let device = if matches!(self.device, Device::Cpu) { "cpu" } else { "cuda" };
        let key = self.sweep.key(point, &material.fingerprint, device)?;
        if let Some(outcome) = self.ledger.finished(&key) {
            return Ok(Done::Kept(outcome.clone()));
        }
        config.check_device(self.device, Work::Training)?;
        let cost = price(point, self.device)?;
        let path = self.out.join(&point.name);
        let mut session = self.session(&path, config, &material)?;
        if !train::steps(&mut session, &self.guard, false)? {
            return Ok(Done::Interrupted);
        }
        let run = session.run().clone();
        drop(session);
        let (trained, judged) = self.judge(&run)?;
        if judged.holds == Some(false) {
            note(format_args!("{}: THE BOUND IS BROKEN: please report this", point.name));
        }
        note(format_args!("{}: {} perplexity {:.4}", point.name, judged.protocol.name(), judged.perplexity));
        Outcome::finished(&key, point, &command(), cost, &trained, &judged).map(Done::Finished)
    }

    /// A new run, or the one that is there from its newest checkpoint.
    fn session(&self, path: &Path, config: &Config, material: &Material) -> Result<Session> {
        if !Run::exists(path) {
            return Session::begin(&NewFolder::at(path)?, config, material, self.device);
        }
        let mut run = Run::open(path)?;
        run.change(config.clone())?;
        let (session, warnings) = Session::resume(&run, material, self.device)?;
        warnings.iter().for_each(|warning| note(format_args!("warning: {warning}")));
        run.write_config()?;
        Ok(session)
    }

    /// What the run's held-out sequences cost it, by a bound or exactly.
    fn judge(&self, run: &Run) -> Result<(Trained, Judgement)> {
        let begun = Instant::now();
        let config = run.config();
        let mut model = run.load(self.device, Work::Evaluation)?;
        warn(&model);
        let source = match config.data.paths.is_empty() {
            true => validation_stories(config.model.seq, self.sweep.sequences)?,
            false => lab::eval::held_out(run, &model)?.source,
        };
        let (protocol, draws) = (Sweep::protocol(config), self.sweep.samples);
        let evaluator = Evaluator::new(config, protocol, config.fast.steps, draws, &model.params, &mut model.store)?;
        config.check_room(&model.store, Work::Evaluation)?;
        let count = source.samples().unwrap_or(u64::MAX).min(self.sweep.sequences);
        let bar = bar(count, "{bar:24} {pos}/{len} sequences  ETA {eta}");
        let scored = evaluator.score(&mut model.store, &source, Some(count), |done| bar.set_position(done));
        bar.finish_and_clear();
        let judged = Judgement::of(protocol, &scored?, begun.elapsed().as_secs_f64());
        if !judged.perplexity.is_finite() {
            return Err(Error::new("the held-out perplexity is not finite"));
        }
        let (targets, seconds) = run.effort()?;
        Ok((Trained { weights: model.weights, targets, seconds }, judged))
    }
}
