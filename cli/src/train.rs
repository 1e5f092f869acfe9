//! `ltm train`.

use super::eval::reading;
use super::interrupt::{self, Guard};
use super::output::{note, print, warn};
use super::place::Place;
use super::progress::Training;
use super::ranks;
use super::runs;
use super::settings::{Settings, locate};
use engine::{Collective, Result};
use lab::tensorboard::Events;
use ltm::config::Config;
use ltm::run::{FREE_AT_RESUME, Follower, Material, NewFolder, Session};
use ltm::shell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Train a model on your own text, or on the embedded corpus
///
/// Writes a run folder with the configuration, metrics.jsonl and checkpoints, and prints its name. Ctrl-C saves a
/// checkpoint and stops with exit code 130; a second Ctrl-C stops at once. `--resume` continues from the newest
/// complete checkpoint with the same bits as an uninterrupted run.
#[derive(clap::Args)]
pub struct Args {
    /// Text files, token shards, or folders of shards made by `ltm data prepare`, nanoGPT or llm.c [default: the
    /// embedded corpus]
    #[arg(long, value_name = "FILE|DIR", num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// New folder for the run [default: runs/PRESET, or with a number appended if that exists]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Continue the run in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "preset", "config", "model"], long_help = resume_help())]
    resume: Option<PathBuf>,
    /// Also write the metrics as TensorBoard event files: `tensorboard --logdir RUN/tensorboard` shows them. A resumed
    /// run keeps writing them
    #[arg(long)]
    tensorboard: bool,
}

fn resume_help() -> String {
    format!(
        "Continue the run in this folder. Its settings are kept; --set may change only these: {}. Data may have moved \
         (--data), but must be the same",
        FREE_AT_RESUME.join(", ")
    )
}

pub fn run(args: &Args, place: &Place) -> Result<ExitCode> {
    ranks::among(place.device, |ranks| match &args.resume {
        Some(path) => resume(args, path, place, ranks),
        None => begin(args, place, ranks),
    })
}

fn begin(args: &Args, place: &Place, ranks: Arc<dyn Collective>) -> Result<ExitCode> {
    let mut config = args.settings.configuration(&args.data)?;
    config.train.threads = place.threads(config.train.threads);
    if ranks.rank() > 0 {
        return follow(&config, place, ranks);
    }
    let preset = args.settings.preset.as_deref();
    let preset = preset.unwrap_or(if config.data.paths.is_empty() { "demo" } else { "tiny" });
    let folder = match &args.out {
        Some(out) => NewFolder::at(out)?,
        None => NewFolder::numbered(format!("runs/{preset}")),
    };
    place.inside(config.train.threads, || {
        tell(&*ranks);
        let begin = |device: &_| Session::begin(&folder, &config, &material(&config, &ranks)?, device);
        let session = place.within_training(config.train.precision, begin)?;
        train(session, args.tensorboard)
    })
}

fn resume(args: &Args, path: &Path, place: &Place, ranks: Arc<dyn Collective>) -> Result<ExitCode> {
    let mut run = runs::open(path)?;
    run.check_trained_here()?;
    let mut config = run.config.clone();
    args.settings.usual.apply(&mut config)?;
    locate(&mut config, &args.data)?;
    config.train.threads = place.threads(config.train.threads);
    let old_steps = run.config.train.steps;
    run.change(config)?;
    if ranks.rank() > 0 {
        return follow(&run.config, place, ranks);
    }
    place.inside(run.config.train.threads, || {
        tell(&*ranks);
        let resume = |device: &_| Session::resume(&run, &material(&run.config, &ranks)?, device);
        let (session, warnings) = place.within_training(run.config.train.precision, resume)?;
        warn(&warnings);
        if run.config.train.steps != old_steps {
            note(format_args!(
                "note: train.steps is now {} instead of {old_steps}: from here on the learning rates decay towards the \
                 new end",
                run.config.train.steps
            ));
        }
        session.run.write_config()?;
        train(session, args.tensorboard)
    })
}

/// The data of a run that these processes share.
fn material(config: &Config, ranks: &Arc<dyn Collective>) -> Result<Material> {
    Ok(Material { ranks: ranks.clone(), ..lab::text::material(config)? })
}

/// Says how many processes there are, if several.
fn tell(ranks: &dyn Collective) {
    if ranks.size() > 1 {
        note(format_args!("{} processes; this one has {} threads", ranks.size(), rayon::current_num_threads()));
    }
}

/// Does this process's parts of all remaining steps of the run that process 0 has.
fn follow(config: &Config, place: &Place, ranks: Arc<dyn Collective>) -> Result<ExitCode> {
    place.inside(config.train.threads, || {
        let join = |device: &_| Follower::join(config, &material(config, &ranks)?, device);
        let mut follower = place.within_training(config.train.precision, join)?;
        let whole = follow_steps(&mut follower, &Guard::new()?)?;
        Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(interrupt::CODE) })
    })
}

/// Does this process's parts of all remaining steps; returns `false` if an interrupt stopped them.
///
/// # Errors
/// Those of [`Follower::advance`].
pub fn follow_steps(follower: &mut Follower, guard: &Guard) -> Result<bool> {
    while !follower.is_done() {
        if follower.asked_by_any(guard.asked())? {
            return Ok(false);
        }
        if !follower.advance()? {
            break;
        }
    }
    Ok(true)
}

/// Does all remaining steps. The folder's name goes to standard output.
fn train(mut session: Session, tensorboard: bool) -> Result<ExitCode> {
    let run = session.run.clone();
    if !steps(&mut session, &Guard::new()?, tensorboard)? {
        return Ok(ExitCode::from(interrupt::CODE));
    }
    if let Some(best) = session.best().filter(|best| best.step < session.step()) {
        note(format_args!(
            "the best validation was after step {}, {:.4} nats per token: `--checkpoint best` uses the weights of \
             that step",
            best.step, best.cost.loss
        ));
    }
    if let Some(last) = session.validated().filter(|_| run.config.model.kind.infers()) {
        note(reading(last.kl_per_sequence, &run.config.model));
    }
    let path = shell::path(&run.path);
    note(format_args!(
        "done: `ltm eval {path}` evaluates the model, `ltm generate {path} --unconditional` generates text"
    ));
    print(run.path.display()).map(|()| ExitCode::SUCCESS)
}

/// Does all remaining steps; returns `false` if an interrupt stopped it. Also writes the metrics for TensorBoard, if
/// wanted or if the run did so before.
///
/// # Errors
/// Those of [`Session::advance`], with a command to continue if there is one.
pub fn steps(session: &mut Session, guard: &Guard, tensorboard: bool) -> Result<bool> {
    let run = session.run.clone();
    let (path, config) = (&run.path, &run.config);
    let (steps, warmup, begun_at) = (config.train.steps as u64, config.slow.warmup as u64, session.step());
    let mut events = None;
    if tensorboard || Events::exist(path) {
        events = Some(Events::begin(path, &run.metrics()?)?);
    }
    let mut display = Training::new(config, begun_at);
    warn(&session.warnings);
    note(format_args!(
        "{}: {} of {steps} steps to go; the mean loss is over recent steps",
        path.display(),
        steps - begun_at
    ));
    if warmup >= steps {
        note(format_args!(
            "note: slow.warmup = {warmup} is not less than train.steps = {steps}: the slow rate only rises, to \
             {:.3e}; a shorter one is slow.warmup = {}",
            config.slow.rate * steps as f64 / warmup as f64,
            steps / 10
        ));
    }
    while !session.is_done() {
        if session.asked_by_any(guard.asked())? {
            display.bar.finish_and_clear();
            session.save()?;
            note(format_args!(
                "interrupted after step {}, which is saved; `ltm train --resume {}` continues",
                session.step(),
                shell::path(path)
            ));
            return Ok(false);
        }
        let progress = session.advance().map_err(|error| {
            display.bar.finish_and_clear();
            if !session.is_stopped() {
                return error;
            }
            error.hint(format_args!(
                "step {} is saved, and `ltm train --resume {} --set train.non_finite=skip` skips such batches",
                session.step(),
                shell::path(path)
            ))
        })?;
        display.show(&progress);
        if let Some(events) = &mut events {
            progress.lines.iter().try_for_each(|line| events.write(line))?;
        }
    }
    display.bar.finish_and_clear();
    Ok(true)
}
