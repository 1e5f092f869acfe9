//! `ltm report`: runs beside each other in one HTML file that needs nothing else.
//!
//! The page has no script and asks for nothing: its own policy forbids both. Whatever comes from outside of the program, texts
//! and names above all, goes through maud, which escapes it.

mod history;
mod measure;
mod page;
mod tables;
mod words;

use super::output::{note, print};
use super::{device, threads};
use engine::{Error, ErrorKind, Result};
use history::History;
use lab::suite;
use ltm::checkpoint::write_atomic;
use ltm::config::ModelKind;
use ltm::run::{Record, Run};
use measure::Measured;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Show runs beside each other in one HTML page
///
/// Curves, settings, results, audit, what every token of some held-out texts costs, where the KL goes, and texts that the runs
/// write, in one file that needs no network and no script. The same runs give the same page.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of runs, of any kind
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Text file, token shard or folder of shards to judge all runs by [default: what each run held out]
    #[arg(long, value_name = "FILE|DIR")]
    data: Option<PathBuf>,
    /// Judge by the first N sequences; 0 judges nothing
    #[arg(long, value_name = "N", default_value_t = 16)]
    limit: u64,
    /// Texts that every run writes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..1000))]
    samples: u32,
    /// Most tokens of each
    #[arg(long, value_name = "N", default_value_t = 200)]
    tokens: usize,
    /// What they go on from [default: they begin with nothing]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
}

/// A run with all that the page says of it.
struct Subject {
    /// As it was called on the command line.
    name: String,
    run: Run,
    /// Whether the weights came from elsewhere: there is no course to show then.
    imported: bool,
    /// Of the beginning and every continuation, as far as known.
    records: Vec<Record>,
    history: History,
    /// The lines of `suite.jsonl`.
    suite: Vec<Value>,
    /// What is missing or damaged.
    notes: Vec<String>,
    measured: Option<Measured>,
}

impl Subject {
    /// Reads what a run folder holds beside its weights.
    fn open(path: &Path, args: &Args) -> Result<Self> {
        let run = Run::open(path)?;
        if args.measures() && run.newest()?.0.is_none() {
            return Err(Error::new(format!(
                "{0} has no checkpoint in {0}/checkpoints yet: train it further, by --resume, or report its course alone, by --limit 0 \
                 --samples 0",
                path.display()
            )));
        }
        let imported = run.check_trained_here().is_err_and(|error| error.kind() == ErrorKind::Usage);
        let (mut history, mut records) = (History::default(), Vec::new());
        let (suite, note) = history::objects(&path.join(suite::RESULTS))?;
        let mut notes: Vec<String> = note.into_iter().collect();
        if !imported {
            history = History::read(&run.metrics_path())?;
            notes.extend(history.notes.iter().cloned());
            match Record::all(path) {
                Ok(all) => records = all,
                Err(error) => notes.push(error.to_string()),
            }
        }
        Ok(Self {
            name: path.display().to_string(),
            run,
            imported,
            records,
            history,
            suite: suite.unwrap_or_default(),
            notes,
            measured: None,
        })
    }

    fn kind(&self) -> ModelKind {
        self.run.config().model.kind
    }
}

impl Args {
    /// Whether weights are needed.
    fn measures(&self) -> bool {
        self.limit > 0 || self.samples > 0
    }
}

pub fn run(args: &Args, threads: Option<usize>, device: device::Choice) -> Result<()> {
    check(args)?;
    let mut subjects = args.runs.iter().map(|path| Subject::open(path, args)).collect::<Result<Vec<_>>>()?;
    // Bits do not depend on the number of threads, so the first run's does for all.
    let threads = threads.unwrap_or(subjects[0].run.config().train.threads);
    threads::inside(threads, || subjects.iter_mut().try_for_each(|subject| examine(args, subject, device)))?;
    write_atomic(&args.out, page::page(args, &subjects).into_string().as_bytes())?;
    print(format_args!("{}", args.out.display()))
}

/// Computes what is asked for of one run, and says what is missing.
fn examine(args: &Args, subject: &mut Subject, device: device::Choice) -> Result<()> {
    subject.notes.iter().for_each(|line| note(format_args!("note: {line}")));
    if args.measures() {
        let measured = device::within(device, |device| measure::measure(args, &subject.run, device))?;
        subject.notes.extend(measured.notes.iter().cloned());
        if let Some(text) = measured.text.as_ref().filter(|text| text.is_training_text) {
            subject.notes.push(format!("{}: {text}", subject.name));
        }
        subject.measured = Some(measured);
    }
    Ok(())
}

/// What cannot be is said before anything is computed.
fn check(args: &Args) -> Result<()> {
    if args.prompt.as_deref() == Some("") {
        return Err(Error::usage("--prompt is empty: give it some text, or leave it out"));
    }
    if args.samples > 0 && args.tokens == 0 {
        return Err(Error::usage("--tokens 0: must be at least 1"));
    }
    let folder = args.out.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => {
            Err(Error::new(format!("cannot write {}: there is no folder {}", args.out.display(), folder.display())))
        }
        _ if args.out.is_dir() => Err(Error::usage(format!("--out {} is a folder: name a file", args.out.display()))),
        _ => Ok(()),
    }
}
