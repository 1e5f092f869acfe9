//! `ltm audit`: which of a run's numbers are bounds, and what its latents remember.

use super::checkpoint::Checkpoint;
use super::command_line::whole;
use super::eval;
use super::output::{check_place, command, print, warn};
use super::place::Place;
use super::progress::behind_bar;
use engine::{Device, Error, Result};
use lab::audit::masked::{self, Toy};
use lab::audit::{self, Audit, audit};
use lab::eval::{Head, Row, Text};
use lab::ledger::{Ledger, Named, Options, check_same_text};
use ltm::checkpoint::write_atomic;
use ltm::config::Work;
use ltm::data::Source;
use ltm::evaluate::Protocol;
use ltm::json;
use ltm::run::{Loaded, Run};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Check which of a run's numbers are bounds, and what its latents remember
///
/// Evaluates all protocols at T = 1, 2, 4, … fast steps, on the run's validation text or on your own text. Shows
/// whether each number is a bound, what the same posteriors cost at fresh noise, how the NLL falls with T, and which
/// layers and latents carry the KL. It also fits the same decoder's posteriors at the reference's rates, from its initial
/// log-variance, and compares the two bounds. The exact probability of the embedded corpus's stories is known, so for a
/// run trained on them the audit also tests the bounds.
///
/// For a run of masked diffusion it says of every protocol whether its number is a bound and why, and compares the estimate by draws
/// with the enumeration of all masks on texts of a few tokens. If they disagree, the exit code is 1.
///
/// The ledger shows what the tokens cost by what they tell: on stories of the embedded corpus new facts, repeated facts
/// and the rest, beside the least possible cost and that of the best reader without memory; on any text the first, second
/// and later mentions of names and other words. On stories it also counts the facts that the model's own texts keep. For
/// a baseline, which infers no latents, there is only the ledger. The audit ends with a summary in words.
///
/// On text of your own, compare runs by the ledger's first table: only there the sum contains the KL, the cost of latents that
/// were inferred from the text. The last table needs no KL, because there the latents know the first half of a sequence only.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Folder of a training run
    run: PathBuf,
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Runs to compare with in the ledger, such as baselines, at the same --checkpoint
    #[arg(long, value_name = "RUN", num_args = 1..)]
    against: Vec<PathBuf>,
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
    /// Fast steps in the ledger [default: as in training]
    #[arg(long, value_name = "T", value_parser = whole::<u32>(1..=65536))]
    steps: Option<u32>,
    /// Stories to generate, and unseen stories to go on with, for the ledger; 0 for none
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = whole::<u32>(0..=9999))]
    stories: u32,
    /// Stories from which the ledger's probe of the latents learns; 0 for no probe
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = whole::<u64>(0..=2048))]
    probe: u64,
    /// Also write all numbers as JSON to this file; - prints them instead of the tables
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let run = args.checkpoint.open(&args.run)?;
    let against = args.against.iter().map(|path| args.checkpoint.open(path)).collect::<Result<Vec<_>>>()?;
    against.iter().try_for_each(|other| check_same_text(&run, other))?;
    if let Some(file) = args.json.as_deref().filter(|file| *file != Path::new("-")) {
        check_place(file, ".json")?;
    }
    place.inside(run.config.train.threads, || place.within(|device| examine(args, &run, &against, device)))
}

fn examine(args: &Args, run: &Run, against: &[Run], device: &Device) -> Result<()> {
    let mut model = run.load(device, Work::Evaluation)?;
    warn(&model.warnings);
    let (source, text) = eval::text_of(run, &model, args.data.as_deref(), args.limit)?;
    eval::note_training_text(run, &text, text.is_training_text);
    let steps = (0..).map(|power| 1 << power).take_while(|&t| t <= args.max_steps as usize).collect();
    let draws = args.samples as usize;
    if run.config.model.kind.method().is_some() {
        return examine_masks(args, run, &mut model, &source, &text);
    }
    let mut rows = Vec::new();
    if run.config.model.kind.infers() {
        let options = audit::Options { steps, draws, sequences: args.limit };
        rows = behind_bar("{bar} {percent}% of all fast steps  ETA {eta}", |show| {
            audit(&mut model, &source, &options, show)
        })?;
    }
    let mut ledgers = vec![ledger(args, &mut model, &source)?];
    for other in against {
        let mut model = other.load(device, Work::Evaluation)?;
        warn(&model.warnings);
        eval::note_training_text(other, &text, text.is_training_text_of(other, &model)?);
        ledgers.push(ledger(args, &mut model, &source)?);
    }
    let names = std::iter::once(&args.run).chain(&args.against).map(|path| path.display().to_string());
    let names: Vec<String> = names.collect();
    let ledgers: Vec<Named> = names.iter().map(String::as_str).zip(&ledgers).collect();
    let audit = Audit { run, model: &model, text: &text, draws, rows: &rows, ledgers: &ledgers };
    if let Some(file) = &args.json {
        let json = json::pretty(&audit.json(&command()));
        if file == Path::new("-") {
            return print(json.trim_end());
        }
        write_atomic(file, json.as_bytes())?;
    }
    print(audit.text())?;
    if !audit.in_words().is_empty() {
        print(format_args!("\nIn words\n{}", audit.in_words()))?;
    }
    print(format_args!("\nof {text}, by {}", command()))
}

/// Masked diffusion has no latents and no cost per token, so there is no ledger.
fn examine_masks(args: &Args, run: &Run, model: &mut Loaded, source: &Arc<dyn Source>, text: &Text) -> Result<()> {
    if !args.against.is_empty() {
        let kind = run.config.model.kind;
        return Err(Error::usage(format!("model.kind = {kind} has no ledger, so there is nothing for --against")));
    }
    let (protocols, steps, samples) =
        (Protocol::all(run.config.model.kind), run.config.fast.steps, args.samples as usize);
    let options = lab::eval::Options { protocols, steps, samples, limit: Some(args.limit) };
    let rows = behind_bar("{bar} {percent}% of all draws  ETA {eta}", |show| {
        lab::eval::evaluate(model, source, &options, show)
    })?;
    let toys = masked::toys(model, source)?;
    if let Some(file) = &args.json {
        let (head, command) = (Head::new(run, model, text), command());
        let json = json::pretty(&MaskedJson { head, command, samples, rows: &rows, toys: &toys });
        if file == Path::new("-") {
            print(json.trim_end())?;
            return masked::check(&toys);
        }
        write_atomic(file, json.as_bytes())?;
    }
    print(masked::text(&rows, &toys))?;
    print(lab::eval::text(&rows))?;
    print(format_args!("\nof {text}, by {}", command()))?;
    masked::check(&toys)
}

/// What `--json` writes of a model of masked diffusion.
#[derive(Serialize)]
struct MaskedJson<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    command: String,
    samples: usize,
    rows: &'a [Row],
    toys: &'a [Toy],
}

fn ledger(args: &Args, model: &mut Loaded, source: &Arc<dyn Source>) -> Result<Ledger> {
    let steps = args.steps.map_or(model.config.fast.steps, |steps| steps as usize);
    let (stories, probe) = (args.stories, args.probe);
    let options = Options { steps, draws: args.samples as usize, sequences: args.limit, stories, probe };
    behind_bar("{bar} {percent}% of a ledger  ETA {eta}", |show| Ledger::new(model, source, &options, show))
}
