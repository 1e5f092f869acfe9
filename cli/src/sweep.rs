//! `ltm sweep`: a grid of runs, one table, three figures.

use super::eval::BAR;
use super::interrupt::{CODE, Guard};
use super::output::{command, note, print, warn};
use super::place::Place;
use super::progress::behind_bar;
use super::settings::locate;
use super::{ranks as processes, train};
use engine::{Collective, Device, Error, Result, file};
use lab::plan::Plans;
use lab::sweep::{Outcome, Point, Sweep, csv, figures, plan, text};
use lab::toml_file;
use ltm::checkpoint::write_atomic;
use ltm::config::{Config, Work};
use ltm::json::{Lines, read_lines};
use ltm::ranks;
use ltm::run::{Follower, Material, NewFolder, Run, Session};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// The file of results in a sweep's folder.
const RESULTS: &str = "sweep.jsonl";

/// Train and evaluate a model for every point of a grid: fast steps, latents, sizes, training tokens, seeds
///
/// FILE is TOML; sweep.toml in the repository is an example and explains every key. Every point is an ordinary run in
/// DIR/POINT. It is evaluated by elbo, an upper bound, or exactly if the model infers no latents. DIR/sweep.jsonl has one
/// line per point, DIR/sweep.csv the table, and DIR/perplexity-{steps,tokens,flops}.svg the figures. A second table has the
/// differences between points of the same seed: from the baselines, and from the next smaller T and N_z.
///
/// The same command continues an interrupted sweep: it keeps finished points, resumes an unfinished one from its
/// checkpoint, and retries failed ones. It refuses a folder whose run has other settings than its point. Ctrl-C saves a
/// checkpoint and stops with exit code 130. If a point fails, the reason is recorded, the others continue, and the exit
/// code is 1. Several processes (mpirun, srun) share every point, and stop at the first that fails while it runs.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// TOML file that describes the sweep
    file: PathBuf,
    /// Folder for runs and results [default: runs/FILE without its ending]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// List the points and their cost without training
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &Args, place: &Place) -> Result<ExitCode> {
    processes::among(place.device, |ranks| all(args, place, ranks))
}

fn all(args: &Args, place: &Place, ranks: Arc<dyn Collective>) -> Result<ExitCode> {
    let sweep: Sweep = toml_file::parse(&file::text(&args.file)?, &args.file)?;
    let mut points = sweep.points(|config| locate(config, &[])).map_err(|e| e.at(args.file.display()))?;
    for config in points.iter_mut().filter_map(|point| point.config.as_mut().ok()) {
        config.train.threads = place.threads(config.train.threads);
    }
    let stem = args.file.file_stem().unwrap_or(OsStr::new("sweep"));
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(stem));
    let count = points.iter().find_map(|point| point.config.as_ref().ok()).map_or(0, |config| config.train.threads);
    place.inside(count, || {
        let device = place.open_to_train()?;
        if args.dry_run {
            return print(plan(&points, &device)).map(|()| ExitCode::SUCCESS);
        }
        check_folders(&out, &points)?;
        fs::create_dir_all(&out).map_err(|e| Error::io("create", &out, &e))?;
        let results = out.join(RESULTS);
        let (file, kept) = match ranks.rank() {
            0 => Lines::open(&results, |_: &Outcome| true).map(|(file, kept)| (Some(file), kept))?,
            _ if results.exists() => (None, read_lines(&results)?),
            _ => (None, Vec::new()),
        };
        // Failed points are retried.
        let kept = kept.into_iter().filter(|outcome| outcome.result.is_some());
        let kept = kept.map(|outcome| (outcome.key.clone(), outcome)).collect();
        Sweeping { sweep: &sweep, file, kept, out: &out, device: &device, guard: Guard::new()?, ranks }.all(&points)
    })
}

/// Checks that every existing folder has the run of its point, so that results of other settings are not mixed in.
fn check_folders(out: &Path, points: &[Point]) -> Result<()> {
    for point in points {
        let path = out.join(&point.name);
        // An unreadable folder makes only its point fail.
        let Ok(run) = Run::open(&path) else { continue };
        if let Some((key, found, wanted)) = point.difference(&run.config) {
            return Err(Error::usage(format!(
                "{} has a run with {key} = {found}, but the sweep needs {wanted}: name another folder with --out, or \
                 remove that one",
                path.display()
            )));
        }
    }
    Ok(())
}

/// A running sweep: one point after the other, and a record of each.
struct Sweeping<'a> {
    sweep: &'a Sweep,
    /// Process 0 writes all files.
    file: Option<Lines>,
    kept: HashMap<String, Outcome>,
    out: &'a Path,
    device: &'a Device,
    guard: Guard,
    ranks: Arc<dyn Collective>,
}

impl Sweeping<'_> {
    /// Does the remaining `points`, then prints all results. Errors of a point are in its record.
    fn all(mut self, points: &[Point]) -> Result<ExitCode> {
        let mut outcomes = Vec::new();
        for (number, point) in (1..).zip(points) {
            note(format_args!("point {number}/{}: {}", points.len(), point.name));
            let outcome = match self.attempt(point) {
                Ok(Some(outcome)) => outcome,
                Ok(None) => break,
                // Other processes may wait for this one.
                Err(error) if self.ranks.size() > 1 && point.config.is_ok() => return Err(error.at(&point.name)),
                Err(error) => {
                    note(format_args!("{} failed: {error}", point.name));
                    Outcome::of("", point, &command(), Err(error))
                }
            };
            if let Some(file) = self.file.as_mut().filter(|_| !self.kept.contains_key(&outcome.key)) {
                file.write(&outcome)?;
                file.sync()?;
            }
            outcomes.push(outcome);
            if ranks::any(&*self.ranks, self.guard.asked())? {
                break;
            }
        }
        if self.ranks.rank() == 0 {
            self.write(&outcomes)?;
        }
        print(text(&outcomes))?;
        if outcomes.len() < points.len() {
            let (done, all) = (outcomes.len(), points.len());
            note(format_args!("interrupted with {done} of {all} points done; the same command continues"));
            return Ok(ExitCode::from(CODE));
        }
        print(format_args!("\nresults, table and figures: {}", self.out.display()))?;
        let failed = outcomes.iter().any(|outcome| outcome.result.is_none());
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Writes the table and the figures.
    fn write(&self, outcomes: &[Outcome]) -> Result<()> {
        write_atomic(&self.out.join("sweep.csv"), &csv(outcomes))?;
        for (name, figure) in figures(outcomes) {
            write_atomic(&self.out.join(format!("{name}.svg")), figure.file().as_bytes())?;
        }
        Ok(())
    }

    /// Trains and evaluates a point, as far as it is unfinished; `None` if an interrupt stopped it.
    fn attempt(&self, point: &Point) -> Result<Option<Outcome>> {
        let config = point.config.as_ref().map_err(Clone::clone)?;
        let material = Material { ranks: self.ranks.clone(), ..lab::text::material(config)? };
        let key = self.sweep.key(point, &material.data.fingerprint, self.device.name());
        let kept = self.kept.get(&key);
        let facts = [("point", key.clone()), ("finished results", format!("{:?}", kept.is_some()))];
        ranks::agree(&*self.ranks, &facts)?;
        if let Some(outcome) = kept {
            note(format_args!("{}: kept from {}", point.name, self.out.join(RESULTS).display()));
            return Ok(Some(outcome.clone()));
        }
        let flops_per_token = Plans::new(config, self.device)?.flops_per_token();
        let path = self.out.join(&point.name);
        let whole = if self.ranks.rank() == 0 {
            train::steps(&mut self.session(&path, config, &material)?, &self.guard, false)?
        } else {
            train::follow_steps(&mut Follower::join(config, &material, self.device)?, &self.guard)?
        };
        if !whole {
            return Ok(None);
        }
        // Only then all find the last checkpoint.
        ranks::any(&*self.ranks, false)?;
        let run = Run::open(&path)?;
        let mut model = run.load(self.device, Work::Evaluation)?.among(self.ranks.clone(), &[])?;
        warn(&model.warnings);
        let judged = behind_bar(BAR, |show| self.sweep.judge(point, flops_per_token, &run, &mut model, show))?;
        if judged.holds == Some(false) {
            note(format_args!("{}: THE BOUND IS BROKEN: please report this", point.name));
        }
        note(format_args!("{}: {} perplexity {:.4}", point.name, judged.protocol.name(), judged.perplexity));
        Ok(Some(Outcome::of(&key, point, &command(), Ok(judged))))
    }

    /// A new run, or an existing one from its newest checkpoint.
    fn session(&self, path: &Path, config: &Config, material: &Material) -> Result<Session> {
        if !Run::exists(path) {
            return Session::begin(&NewFolder::at(path)?, config, material, self.device);
        }
        let mut run = Run::open(path)?;
        run.change(config.clone())?;
        let (session, warnings) = Session::resume(&run, material, self.device)?;
        warn(&warnings);
        run.write_config()?;
        Ok(session)
    }
}
