//! `ltm serve`.

use super::checkpoint::Checkpoint;
use super::command_line::whole;
use super::output::{note, print, warn};
use super::place::Place;
use ::serve::{Facts, Limits, Model, Server};
use engine::{Error, Result};
use lab::text::tokenizer;
use ltm::config::Work;
use ltm::run::Run;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Serve trained models to programs that speak OpenAI's completions
///
/// Answers POST /v1/completions, and GET /v1/models, /health and /metrics; /tokenize, /detokenize and /tokenizer_info are
/// those of lm-evaluation-harness. A model is called by the name of its folder. Log-probabilities of a latent model are
/// those of protocol prefix: latents are inferred from the text before each block, never from what is scored.
///
/// SIGTERM or Ctrl-C ends the server after the requests under way, within about ten seconds; a second one ends it at once.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of training runs
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    #[command(flatten)]
    checkpoint: Checkpoint,
    /// Address and port; port 0 is a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    addr: SocketAddr,
    /// Key that requests must have; needed for an address that other machines reach
    #[arg(long, value_name = "KEY", conflicts_with = "no_key", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    api_key: Option<String>,
    /// Let anybody in who reaches the address
    #[arg(long)]
    no_key: bool,
    /// Latent models: fast steps of an inference [default: as in training]
    #[arg(long, value_name = "T", value_parser = whole::<usize>(0..=1_000_000))]
    steps: Option<usize>,
    /// Latent models: draws of the latents for a log-probability
    #[arg(long, alias = "samples", value_name = "S", default_value_t = 16, value_parser = whole::<usize>(1..=4096))]
    draws: usize,
    /// Latent models: to score a text, infer the latents again every R tokens
    #[arg(long, value_name = "R", default_value_t = 64, value_parser = whole::<usize>(1..=1_000_000))]
    refit: usize,
    /// Requests that run or wait; more are told to come back later
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = whole::<usize>(1..=100_000))]
    queue: usize,
    /// Most tokens that a request may draw for a text
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = whole::<usize>(0..=1_000_000))]
    max_tokens: usize,
    /// Seconds after which a request is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = whole::<u64>(1..=86_400))]
    timeout: u64,
}

/// The name of a run in requests.
fn name(run: &Path) -> String {
    run.canonicalize().unwrap_or_default().file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned()
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let &Args { addr, no_key, steps, draws, refit, queue, max_tokens, timeout, .. } = args;
    if !addr.ip().is_loopback() && args.api_key.is_none() && !no_key {
        return Err(Error::usage(format!(
            "{addr} can be reached from other machines: --api-key KEY lets in who has the key, --no-key lets in anybody"
        )));
    }
    let mut runs: Vec<(String, Run)> = Vec::new();
    for path in &args.runs {
        let name = name(path);
        if runs.iter().any(|(other, _)| *other == name) {
            return Err(Error::usage(format!("two runs are called {name}: requests could not tell them apart")));
        }
        let mut run = args.checkpoint.open(path)?;
        run.config.fast.steps = steps.unwrap_or(run.config.fast.steps);
        run.config = run.config.resolved()?;
        runs.push((name, run));
    }
    let server = Server::bind(addr)?;
    let limits = Limits { queue, tokens: max_tokens, time: Duration::from_secs(timeout), key: args.api_key.clone() };
    place.inside(runs[0].1.config.train.threads, || {
        let models = place.within(|device| {
            let load = |(name, run): &(String, Run)| {
                let loaded = run.load(device, Work::Generation)?;
                warn(&loaded.warnings);
                let tokenizer = tokenizer(run.config.data.tokenizer);
                let facts = Facts::new(name.clone(), &loaded.config, tokenizer, draws, refit)?;
                Model::new(facts, loaded, draws, refit)
            };
            runs.iter().map(load).collect::<Result<Vec<_>>>()
        })?;
        for facts in models.iter().map(|model| &model.facts) {
            let scoring = facts.scoring.fingerprint();
            note(format_args!("{}: {}, {} tokens, {scoring}", facts.name, facts.kind, facts.sequence));
        }
        print(format_args!("http://{}", server.address))?;
        server.run(models, limits)
    })
}
