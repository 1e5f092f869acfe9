//! `ltm eval`.

use super::checkpoint::Checkpoint;
use super::command_line::whole;
use super::gsm8k;
use super::interrupt::{self, Guard};
use super::output::{command, note, print, warn};
use super::place::Place;
use super::progress::{bar, behind_bar};
use super::ranks;
use engine::{Collective, Device, Error, Result};
use indicatif::ProgressBar;
use lab::eval::{Figures, Head, Options, Row, Text, chosen, origin};
use lab::suite;
use lab::table::digits;
use ltm::config::{ModelConfig, Work};
use ltm::data::Source;
use ltm::evaluate::Protocol;
use ltm::json;
use ltm::run::{Loaded, Run, ignored_kl};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// The progress bar of an evaluation.
pub const BAR: &str = "{bar} {pos}/{len} sequences  ETA {eta}";

/// Default number of stories.
const STORIES: u64 = 256;

/// Evaluate a trained model; every number is labelled as a bound or not
///
/// elbo    fit, then S fresh draws: an upper bound on -log p(text) in expectation
/// iwae    the mean importance weight of S draws: a tighter upper bound
/// prefix  fit on the first half of each sequence, score the second: comparable with an autoregressive model
/// fixed   at the noise that the posterior was fitted to, as the public reference code scores: not a bound
/// bound   masked diffusion (model.kind = mdlm, sedd, md4): S draws of masks by their number, S even, plus, under + KL, what a
///         document pays for its length: an upper bound in expectation
/// orders  mdlm on at most 64 tokens, only by its name: the mean probability over S orders of the tokens, a call of the network
///         for each token: a tighter upper bound
/// normalised  sedd: the bound of its scores divided by their sum, from which it generates
/// paper   masked diffusion as its public code scores: not a bound
/// nll     exact; the baselines (model.kind = ar-latent, ar) have no posterior and use only nll and prefix;
///         an oracle (model.kind = oracle) has only nll, given the facts of each story
///
/// Text that the run was trained on is recognised by its bytes or its tokens (in a suite only by its bytes) and marked,
/// unless it was cut afterwards.
///
/// NLL and KL are printed separately, with a dash if a number has no such part. Perplexity is exp(all nats / all
/// tokens). Bits per byte do not depend on the tokenizer. Without --data the command scores the run's validation text.
/// If that is the embedded corpus, the stories' exact cost is printed beside every number.
///
/// With --suite FILE.toml the command scores several texts in turn: the paper's zero-shot sets, with the published
/// figures beside ours, and your own sets. suite.toml in the repository is an example and explains every key.
/// RUN/suite.jsonl keeps finished results, which are reused while weights, data and settings are the same. So after
/// Ctrl-C (exit code 130) the same command continues, even within a set: a file RUN/suite.jsonl.*.begun records the
/// progress. If a set cannot be read, the table gives the reason, the other sets are scored, and the exit code is 1.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Folder of a training run
    run: PathBuf,
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Text file, token shard or folder of shards [default: the run's validation text]; with --suite, the base folder
    /// of its paths [default: the folder of the suite file]
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "GsmArgs")]
    data: Option<PathBuf>,
    /// Score the sets in this file, one after the other; continues an interrupted suite
    #[arg(long, value_name = "FILE", conflicts_with = "GsmArgs")]
    suite: Option<PathBuf>,
    /// File for finished results of the suite [default: RUN/suite.jsonl]
    #[arg(long, value_name = "FILE", requires = "suite")]
    results: Option<PathBuf>,
    /// Protocol; may be given several times
    #[arg(long, value_name = "P", default_value = "all", conflicts_with = "GsmArgs", value_delimiter = ',', value_parser = ["all", "elbo", "iwae", "prefix", "fixed", "nll", "bound", "orders", "normalised", "paper"])]
    protocol: Vec<String>,
    /// Fast steps per sequence [default: as in training]
    #[arg(long, value_name = "T", value_parser = whole::<usize>(0..))]
    pub(super) steps: Option<usize>,
    /// Draws per sequence, of the posterior or of masks, or generated texts per problem
    #[arg(long, alias = "draws", value_name = "S", default_value_t = 16, value_parser = whole::<usize>(0..=65_536))]
    pub(super) samples: usize,
    /// Score only the first N sequences or problems [default: all; 256 for the embedded corpus]; with --suite, the
    /// first N documents of every set
    #[arg(long, value_name = "N", value_parser = whole::<u64>(1..))]
    pub(super) limit: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) problems: gsm8k::GsmArgs,
}

pub fn run(args: &Args, place: &Place) -> Result<ExitCode> {
    ranks::among(place.device, |ranks| {
        let run = args.checkpoint.open(&args.run)?;
        place.inside(run.config.train.threads, || place.within(|device| evaluate(args, &run, device, &ranks)))
    })
}

fn evaluate(args: &Args, run: &Run, device: &Device, ranks: &Arc<dyn Collective>) -> Result<ExitCode> {
    let config = &run.config;
    let embedded = args.data.is_none() && config.data.paths.is_empty();
    if let Some(file) = &args.problems.gsm8k {
        if ranks.size() > 1 {
            return Err(Error::usage("--gsm8k is for one process: start it without mpirun or srun"));
        }
        let mut model = run.load(device, Work::Generation)?;
        return gsm8k::run(file, args, run, &mut model);
    }
    let model = run.load(device, Work::Evaluation)?;
    let protocols = protocols(args, &config.model)?;
    let (samples, limit) = (args.samples, args.limit);
    let options = Options { protocols, steps: args.steps.unwrap_or(config.fast.steps), samples, limit };
    let facts = |text: Option<String>| [("options", format!("{options:?}")), ("text", text.unwrap_or_default())];
    if let Some(file) = &args.suite {
        let mut model = model.among(ranks.clone(), &facts(None))?;
        warn(&model.warnings);
        let (data, results) = (args.data.as_deref(), args.results.as_deref());
        let request = suite::Request { file, data, results, options, command: command() };
        return score_suite(run, &mut model, &request, device, args.json);
    }
    let (source, text) = text_of(run, &model, args.data.as_deref(), limit.unwrap_or(STORIES))?;
    let mut model = model.among(ranks.clone(), &facts(text.sha256.clone()))?;
    note_training_text(run, &text, text.is_training_text);
    warn(&model.warnings);
    let rows = behind_bar(BAR, |show| lab::eval::evaluate(&mut model, &source, &options, show))?;
    if args.json {
        let (head, command) = (Head::new(run, &model, &text), command());
        let json = Json { head, command, fast_steps: options.steps, samples, results: &rows };
        return print(json::pretty(&json).trim_end()).map(|()| ExitCode::SUCCESS);
    }
    let Figures { sequences, tokens, protocol, .. } = &rows[0].figures;
    let what = if embedded { "stories of the embedded corpus" } else { "sequences" };
    print(format_args!(
        "{}:\n{sequences} {what}, {tokens} tokens scored by {}\n",
        origin(run, &model, &options),
        protocol.name()
    ))?;
    print(lab::eval::text(&rows))?;
    if let Some(elbo) = rows.iter().map(|row| &row.figures).find(|figures| figures.protocol == Protocol::Elbo) {
        print(reading(elbo.kl.unwrap_or_default() / elbo.sequences as f64, &config.model))?;
    }
    print(format_args!("of {text}, by {}", command())).map(|()| ExitCode::SUCCESS)
}

/// The text that `--data` names, else that of the run, at most so many sequences of the embedded corpus.
pub fn text_of(run: &Run, model: &Loaded, data: Option<&Path>, count: u64) -> Result<(Arc<dyn Source>, Text)> {
    chosen(run, model, data, count)
        .map_err(|error| if data.is_none() { error.hint("--data names a text") } else { error })
}

/// How to read a bound whose latents cost `kl` nats per sequence of a `model`.
pub fn reading(kl: f64, model: &ModelConfig) -> String {
    format!(
        "The latents cost {} nats per sequence: below {} the decoder may ignore them. The total is an upper bound.\nIf it \
         is below the NLL of the baseline (the same training with --model ar-latent), the latents help; otherwise it proves nothing",
        digits(kl, 2),
        digits(ignored_kl(model), 2)
    )
}

/// Scores the sets of a suite, and returns an error at the end if one is missing.
fn score_suite(
    run: &Run,
    model: &mut Loaded,
    request: &suite::Request<'_>,
    device: &Device,
    json: bool,
) -> Result<ExitCode> {
    let shown = Shown { bar: bar(0, "{bar} {percent}%  ETA {eta}  {wide_msg}"), guard: Guard::new()? };
    let suite = suite::Suite::new(run, model, request, device, &shown);
    let judged = suite.map_err(|error| error.hint("--results names another file"))?.all();
    shown.bar.finish_and_clear();
    let Some(judged) = judged? else { return Ok(ExitCode::from(interrupt::CODE)) };
    if json {
        let json = SuiteJson {
            run: &run.path,
            step: model.step,
            weights_sha256: &model.weights,
            suite: request.file,
            fast_steps: request.options.steps,
            samples: request.options.samples,
            sets: &judged,
        };
        print(json::pretty(&json).trim_end())?;
    } else {
        print(suite::text(run, model, request, &judged))?;
    }
    let missing = judged.iter().filter(|judged| judged.missing.is_some());
    let missing: Vec<&str> = missing.map(|judged| judged.set.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let (all, names) = (judged.len(), missing.join(", "));
    Err(Error::new(format!("{} of {all} sets are missing from the table: {names}", missing.len())))
}

/// Shows the progress of a suite, and stops it at an interrupt.
struct Shown {
    bar: ProgressBar,
    guard: Guard,
}

impl suite::Watch for Shown {
    fn note(&self, line: String) {
        note(line);
    }

    fn progress(&self, label: &str, done: u64, of: u64) -> Result<()> {
        self.bar.set_length(of);
        self.bar.set_message(label.to_string());
        self.bar.set_position(done);
        self.guard.check()
    }

    fn stops(&self) -> bool {
        self.guard.asked()
    }
}

/// What `--json` prints of a suite.
#[derive(Serialize)]
struct SuiteJson<'a> {
    run: &'a Path,
    step: u64,
    weights_sha256: &'a str,
    suite: &'a Path,
    fast_steps: usize,
    samples: usize,
    sets: &'a [suite::Judged],
}

/// What `--json` prints of a text.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    command: String,
    fast_steps: usize,
    samples: usize,
    results: &'a [Row],
}

/// The protocols asked for.
fn protocols(args: &Args, model: &ModelConfig) -> Result<Vec<Protocol>> {
    if args.protocol.iter().any(|name| name == "all") {
        return Ok(Protocol::all(model.kind));
    }
    let named = args.protocol.iter().map(|name| Protocol::by_name(name, model.kind)).collect::<Result<Vec<_>>>()?;
    named.iter().try_for_each(|protocol| protocol.check(model)).map(|()| named)
}

/// Notes whether the run was trained on a text.
pub fn note_training_text(run: &Run, text: &Text, is_training_text: bool) {
    if is_training_text {
        let (run, name) = (run.path.display(), &text.name);
        note(format_args!("note: {run} was trained on {name}, so these numbers are not for unseen text"));
    }
}
