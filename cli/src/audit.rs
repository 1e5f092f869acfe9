//! `ltm audit`: which of a run's numbers are bounds.

use super::checkpoint::Checkpoint;
use super::command_line::whole;
use super::eval;
use super::output::{command, print, warn};
use super::place::Place;
use super::progress::behind_bar;
use engine::{Device, Error, Result};
use lab::audit::{Audit, Options, audit, verdict};
use ltm::config::Work;
use ltm::json;
use ltm::run::Run;
use std::path::PathBuf;

/// Check which of a run's numbers are bounds
///
/// Evaluates all protocols at T = 1, 2, 4, … fast steps, on the run's validation text or on your own text. Shows
/// whether each number is a bound, what the same posteriors cost at fresh noise, how the NLL falls with T, and which
/// layers and latents carry the KL. The exact probability of the embedded corpus's stories is known, so for a run
/// trained on them the audit also tests the bounds. It ends with a summary in words.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Folder of a training run that infers latents
    run: PathBuf,
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Text file, token shard or folder of shards [default: the run's validation text]
    #[arg(long, value_name = "FILE|DIR")]
    data: Option<PathBuf>,
    /// Evaluate only the first N sequences
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole::<u64>(1..))]
    limit: u64,
    /// Draws per sequence
    #[arg(long, value_name = "S", default_value_t = 16, value_parser = whole::<u32>(2..=65536))]
    samples: u32,
    /// Largest number of fast steps; the audit uses all powers of two up to it
    #[arg(long, value_name = "T", default_value_t = 128, value_parser = whole::<u32>(1..=65536))]
    max_steps: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let run = args.checkpoint.open(&args.run)?;
    let config = &run.config;
    if !config.model.kind.infers() {
        return Err(Error::usage(format!(
            "{} infers no latents: its NLL is exact, so there is nothing to audit",
            args.run.display()
        )));
    }
    place.inside(config.train.threads, || place.within(|device| examine(args, &run, device)))
}

fn examine(args: &Args, run: &Run, device: &Device) -> Result<()> {
    let mut model = run.load(device, Work::Evaluation)?;
    warn(&model.warnings);
    let (source, text) = eval::text_of(run, &model, args.data.as_deref(), args.limit)?;
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
