//! `ltm audit`: what a run's numbers are worth.

use super::checkpoint::Checkpoint;
use super::eval;
use super::output::{command, print, warn};
use super::place::Place;
use super::progress::behind_bar;
use engine::{Device, Error, Result};
use lab::audit::{Audit, Options, audit, verdict};
use lab::eval::chosen;
use ltm::config::Work;
use ltm::json;
use ltm::run::Run;
use std::path::PathBuf;

/// Ask whether a run's numbers are bounds
///
/// All protocols at T = 1, 2, 4, … fast steps, on the run's validation text or on a text of yours: whether each number is a
/// bound, what the same posteriors cost at noise that they were not fitted to, how the NLL falls with T, and in which layers
/// and latents the KL is spent. The exact probability of the embedded corpus's stories is known, so an audit of a run that
/// was trained on them tests the bounds too. Ends with a verdict in words.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Folder of a training run, with latents
    run: PathBuf,
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Text file, token shard or folder of shards [default: the run's validation text]
    #[arg(long, value_name = "FILE|DIR")]
    data: Option<PathBuf>,
    /// Sequences, the first ones
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Draws per sequence
    #[arg(long, value_name = "S", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=65536))]
    samples: u32,
    /// Most fast steps; all powers of two up to it are tried
    #[arg(long, value_name = "T", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_steps: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let run = args.checkpoint.open(&args.run)?;
    let config = &run.config;
    if !config.model.kind.has_latents() {
        return Err(Error::usage(format!(
            "{} has no latents: its nll is exact, and there is nothing to audit",
            args.run.display()
        )));
    }
    place.inside(config.train.threads, || place.within(|device| examine(args, &run, device)))
}

fn examine(args: &Args, run: &Run, device: &Device) -> Result<()> {
    let mut model = run.load(device, Work::Evaluation)?;
    warn(&model.warnings);
    let (source, text) = chosen(run, &model, args.data.as_deref(), args.limit)
        .map_err(|error| if args.data.is_none() { error.hint("--data names another text") } else { error })?;
    eval::note_training_text(run, &text);
    let steps = (0..).map(|power| 1 << power).take_while(|&t| t <= args.max_steps as usize).collect();
    let options = Options { steps, draws: args.samples as usize, sequences: args.limit };
    let rows =
        behind_bar("{bar} {percent}% of all fast steps  ETA {eta}", |show| audit(&mut model, &source, &options, show));
    let audit = Audit { run, model: &model, text: &text, draws: options.draws, rows: &rows? };
    if args.json {
        return print(json::pretty(&audit.json(&command())).trim_end());
    }
    print(audit.text())?;
    print(format_args!("\nIn words\n{}\n\nof {text}, by {}", verdict(audit.rows, &run.config), command()))
}
