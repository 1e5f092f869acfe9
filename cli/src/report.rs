//! `ltm report`.

use super::checkpoint::Checkpoint;
use super::output::{check_place, note, print};
use super::place::Place;
use super::progress::behind_bar;
use super::runs;
use engine::{Device, Result};
use lab::report::{Entry, Measured, Options, page};
use ltm::checkpoint::write_atomic;
use ltm::run::Choice;
use ltm::shell;
use std::path::PathBuf;

/// Show runs beside each other in one HTML page
///
/// Curves, settings, results, audit, the cost of every token of some validation texts, where the KL goes, and texts that the
/// runs write, in one file that needs no network and no script. A run without a checkpoint is shown with what it has. The same
/// runs give the same page.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of runs, of any kind
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Text file, token shard or folder of shards to judge all runs by [default: each run's validation text]
    #[arg(long, value_name = "FILE|DIR")]
    data: Option<PathBuf>,
    /// Judge by the first N sequences; 0 judges nothing
    #[arg(long, value_name = "N", default_value_t = 16)]
    limit: u64,
    /// Texts that every run writes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..1000))]
    samples: u32,
    /// Most tokens of each
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    tokens: usize,
    /// What they begin with [default: nothing]
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    prompt: Option<String>,
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    check_place(&args.out)?;
    let options = Options {
        data: args.data.clone(),
        limit: args.limit,
        samples: args.samples,
        tokens: args.tokens,
        prompt: args.prompt.clone(),
    };
    let open = |path: &PathBuf| {
        let mut entry = Entry::open(path).map_err(|error| runs::explained(error, path))?;
        entry.run.choice = args.checkpoint.choice;
        Ok(entry)
    };
    let mut entries = args.runs.iter().map(open).collect::<Result<Vec<_>>>()?;
    if options.measures() {
        // Bits do not depend on the number of threads, so the first run's does for all.
        let measured = place.inside(entries[0].run.config.train.threads, || {
            let measure = |device: &Device, entry: &Entry| {
                behind_bar("{bar} {percent}% of a run  ETA {eta}", |show| {
                    Measured::new(&options, &entry.run, device, show)
                })
            };
            place.within(|device| entries.iter().map(|entry| measure(device, entry)).collect::<Result<Vec<_>>>())
        })?;
        entries.iter_mut().zip(measured).for_each(|(entry, measured)| entry.measured = Some(measured));
    }
    entries.iter().flat_map(Entry::missing).for_each(|line| note(format_args!("note: {line}")));
    write_atomic(&args.out, page(&options, &entries, &command(args)).as_bytes())?;
    print(args.out.display())
}

/// The command that makes this page, without what makes no difference to it.
fn command(args: &Args) -> String {
    let mut words = vec!["ltm report".to_string()];
    words.extend(args.runs.iter().map(|run| shell::path(run)));
    words.extend(args.data.iter().map(|data| format!("--data {}", shell::path(data))));
    if args.checkpoint.choice != Choice::Latest {
        words.push(format!("--checkpoint {}", args.checkpoint.choice));
    }
    words.push(format!("--limit {} --samples {} --tokens {}", args.limit, args.samples, args.tokens));
    words.extend(args.prompt.iter().map(|prompt| format!("--prompt {}", shell::word(prompt))));
    words.join(" ")
}
