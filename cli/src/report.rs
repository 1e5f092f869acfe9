//! `ltm report`.

use super::checkpoint::Checkpoint;
use super::command_line::whole;
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

/// Compare runs side by side in one HTML page
///
/// Shows curves, settings, results, audit, ledger, the cost of every token of some validation texts, the KL by layer, and
/// generated texts, in one file without network access and scripts. For a run without a checkpoint it shows what is
/// available. The same runs give the same page.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of runs, of any kind
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// HTML file to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Text file, token shard or folder of shards on which to evaluate all runs [default: each run's validation text]
    #[arg(long, value_name = "FILE|DIR")]
    data: Option<PathBuf>,
    /// Evaluate on the first N sequences; 0 for no evaluation
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = whole::<u64>(0..))]
    limit: u64,
    /// Texts to generate per run
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = whole::<u32>(0..=999))]
    samples: u32,
    /// Most tokens per text
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = whole::<usize>(1..))]
    tokens: usize,
    /// Prompt of the texts [default: none]
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    prompt: Option<String>,
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    check_place(&args.out, ".html")?;
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
        // Bits do not depend on the number of threads, so the first run's number is used for all.
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

/// The command that makes this page, without options that do not affect it.
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
