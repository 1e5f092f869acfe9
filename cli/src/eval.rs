//! `ltm eval`.

use super::evaluation::{self, Options, Subject};
use super::interrupt;
use super::output::{command, print, short};
use super::{device, gsm8k, suite, threads};
use clap::builder::RangedU64ValueParser;
use engine::{Device, Error, Result};
use ltm::config::{ModelKind, Work};
use ltm::corpus::Corpus;
use ltm::data::Source;
use ltm::evaluate::Protocol;
use ltm::json::Value;
use ltm::run::{IMPORTED, Loaded, Run, Scorable, validation_stories};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Stories scored unless asked otherwise.
const STORIES: u64 = 256;

/// Judge a trained model by protocols whose numbers mean what they say
///
/// elbo    fit, then S fresh draws: an upper bound on -log p(text) in expectation
/// iwae    the mean importance weight of S draws: a tighter upper bound
/// prefix  fit on the first half of each sequence, score the second: comparable with an autoregressive model
/// fixed   the public reference's own number, at the noise that was fitted to: not a bound
/// nll     exact; this and prefix are the protocols of the autoregressive baseline (model.kind = ar), which has no posterior
///
/// A text that the run has learnt from, byte for byte, is known and said to be; what was prepared, packed or cut from it since is not.
///
/// NLL and KL stand apart; perplexity is exp(all nats / all tokens); bits per byte do not depend on the tokenizer. Without
/// --data the held-out part of the run's own data is scored; if that is the embedded corpus, the source's true entropy
/// stands beside every number.
///
/// With --suite FILE.toml many texts are scored one after the other: the paper's zero-shot sets, with its figures beside
/// ours, and sets of your own. suite.toml in the repository is an example and explains every key. What is finished is kept
/// in RUN/suite.jsonl and is not done again while weights, data and settings are the same, so after Ctrl-C (exit code 130)
/// the same command goes on, within a set too: RUN/suite.jsonl.begun says how far it has come. A set that cannot be read is
/// missing from the table, which says why; the others are scored, and the exit code is 1.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Folder of a training run
    run: PathBuf,
    /// Text file, token shard or folder of shards [default: what the run held out]; with --suite the folder that its
    /// paths start from [default: that of the suite file]
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "GsmArgs")]
    data: Option<PathBuf>,
    /// Score the sets of this file, one after the other, and resume where it was interrupted
    #[arg(long, value_name = "FILE", conflicts_with = "GsmArgs")]
    suite: Option<PathBuf>,
    /// Where the suite keeps what is finished [default: RUN/suite.jsonl]
    #[arg(long, value_name = "FILE", requires = "suite")]
    results: Option<PathBuf>,
    /// Protocols; may be given several times
    #[arg(long, value_name = "P", default_value = "all", conflicts_with = "GsmArgs", value_delimiter = ',', value_parser = ["all", "elbo", "iwae", "prefix", "fixed", "nll"])]
    protocol: Vec<String>,
    /// Fast steps per sequence [default: as in training]
    #[arg(long, value_name = "T")]
    steps: Option<usize>,
    /// Draws per sequence, or texts per problem
    #[arg(long, value_name = "S", default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(..=65_536))]
    samples: usize,
    /// Score only the first N sequences or problems [default: all; of the embedded corpus 256]; with --suite the first N
    /// documents of every set
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    problems: gsm8k::GsmArgs,
}

pub fn run(args: &Args, threads: Option<usize>, device: device::Choice) -> Result<ExitCode> {
    if args.limit == Some(0) {
        return Err(Error::usage("--limit 0: must be at least 1"));
    }
    let run = Run::open(&args.run)?;
    threads::inside(threads.unwrap_or(run.config().train.threads), || {
        device::within(device, |device| evaluate(args, &run, device))
    })
}

fn evaluate(args: &Args, run: &Run, device: &Device) -> Result<ExitCode> {
    let config = run.config();
    let embedded = args.data.is_none() && config.data.paths.is_empty();
    if let Some(file) = &args.problems.gsm8k {
        let mut model = run.load(device, Work::Generation)?;
        let request =
            gsm8k::Request { file, samples: args.samples, limit: args.limit, steps: args.steps, json: args.json };
        return gsm8k::run(&args.problems, &request, run, &mut model).map(|()| ExitCode::SUCCESS);
    }
    let mut model = run.load(device, Work::Evaluation)?;
    let protocols = protocols(args, config.model.kind)?;
    let steps = args.steps.unwrap_or(config.fast.steps);
    if let Some(file) = &args.suite {
        evaluation::warn(&model);
        let (data, results) = (args.data.as_deref(), args.results.as_deref());
        let request =
            suite::Request { file, data, results, protocols, steps, samples: args.samples, limit: args.limit };
        return match suite::run(run, &mut model, &request, device)? {
            Some(judged) => suite::show(run, &model, &request, &judged, args.json).map(|()| ExitCode::SUCCESS),
            None => Ok(ExitCode::from(interrupt::CODE)),
        };
    }
    let (source, subject) = text(args.data.as_deref(), run, &model, args.limit.unwrap_or(STORIES))?;
    evaluation::warn(&model);
    let kind = config.model.kind;
    let options = Options { protocols, steps, samples: args.samples, limit: args.limit };
    let rows = evaluation::evaluate(&mut model, &source, &options)?;
    let corpus = embedded.then(Corpus::default);
    if args.json {
        let [data, data_sha256, data_learnt] = subject.entries();
        let value = Value::object([
            ("run", run.path().display().to_string().into()),
            ("step", model.step.into()),
            ("weights_sha256", model.weights.as_str().into()),
            ("seed", config.train.seed.into()),
            ("command", command().into()),
            data,
            data_sha256,
            data_learnt,
            ("fast_steps", steps.into()),
            ("samples", args.samples.into()),
            ("results", evaluation::json(&rows, corpus.as_ref())),
        ]);
        print(value.pretty().trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (sequences, tokens) = rows.first().map_or((0, 0), |row| (row.total.sequences, row.total.tokens));
    let what = if embedded { "held-out stories of the embedded corpus" } else { "sequences" };
    let how = match kind {
        ModelKind::Ltm => format!(", T = {steps} fast steps, S = {} draws", args.samples),
        ModelKind::Ar | ModelKind::Gpt2 => String::new(),
    };
    print(format_args!(
        "{} after step {}, weights {}, seed {}: {sequences} {what}, {tokens} tokens scored by {}{how}\n",
        run.path().display(),
        model.step,
        short(&model.weights),
        config.train.seed,
        rows.first().map_or("", |row| row.protocol.name()),
    ))?;
    print(evaluation::text(&rows, corpus.as_ref()))?;
    print(format_args!("of {subject}, by {}", command())).map(|()| ExitCode::SUCCESS)
}

/// The protocols asked for.
fn protocols(args: &Args, kind: ModelKind) -> Result<Vec<Protocol>> {
    if args.protocol.iter().any(|name| name == "all") {
        return Ok(Protocol::of(kind).to_vec());
    }
    let mut protocols = Vec::new();
    for name in &args.protocol {
        let protocol = Protocol::by_name(name, kind)?;
        // Named twice is asked for once.
        if !protocols.contains(&protocol) {
            protocols.push(protocol);
        }
    }
    Ok(protocols)
}

/// The text to judge a run by, and what vouches for it: the one at `data`, else what the run held out, of the embedded
/// corpus so many `stories`.
///
/// # Errors
/// Data that cannot be read or have changed, and a run that held nothing out.
pub fn text(data: Option<&Path>, run: &Run, model: &Loaded, stories: u64) -> Result<(Arc<dyn Source>, Subject)> {
    let config = run.config();
    let path = run.path().display();
    match data {
        Some(path) => named(path, run),
        None if model.data == IMPORTED => {
            Err(Error::usage(format!("{path} was imported and held nothing out: name text to score with --data")))
        }
        None if config.data.paths.is_empty() => {
            Ok((validation_stories(config.model.seq, stories)?, Subject::embedded()))
        }
        None => {
            let Scorable { source, files } = held_out(run, model)?;
            Ok((source, Subject::held_out(&files, run)?))
        }
    }
}

/// All of the text at `path`, and what vouches for it.
pub fn named(path: &Path, run: &Run) -> Result<(Arc<dyn Source>, Subject)> {
    let Scorable { source, files } = lab::text::sequences(path, run.config())?;
    Ok((source, Subject::named(path, &files, run)?))
}

/// What the run held out, provided that it is still what it was.
pub fn held_out(run: &Run, model: &Loaded) -> Result<Scorable> {
    let material = lab::text::material(run.config())?;
    if material.fingerprint != model.data {
        return Err(Error::new(format!(
            "the data have changed since the run learnt from them (checksum {}, now {}), so what they hold out now may have been learnt: put the old ones back, or name unseen text with --data",
            model.data, material.fingerprint
        )));
    }
    let Some(source) = material.validation else {
        return Err(Error::usage(format!("{} held nothing out: name data to score with --data", run.path().display())));
    };
    Ok(Scorable { source, files: material.validation_files.into_iter().map(|file| file.path).collect() })
}
