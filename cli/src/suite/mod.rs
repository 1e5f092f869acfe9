//! `ltm eval RUN --suite FILE`: many texts by all protocols. What is finished is kept in a file and not done again.

mod begun;
mod file;
mod table;

pub use table::published;

use super::evaluation::note_learnt;
use super::interrupt::Guard;
use super::output::{command, note, print};
use super::progress::bar;
use begun::Begun;
use engine::{Device, Error, Result};
use lab::suite::{LeftOut, Sequences, Set, Tally, known};
use ltm::config::Tokenizer as Name;
use ltm::config::{Config, ModelKind, Work};
use ltm::data::Tokenizer;
use ltm::evaluate::{Evaluator, Protocol};
use ltm::hash::sha256;
use ltm::json::{self, Value};
use ltm::run::{Loaded, Run, SOURCES, TrainingText};
use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The file of results in a run folder.
pub const RESULTS: &str = "suite.jsonl";

/// What is asked for.
pub struct Request<'a> {
    /// The suite file.
    pub file: &'a Path,
    /// Where its relative paths start.
    pub data: Option<&'a Path>,
    /// Where results are kept; the run folder by default.
    pub results: Option<&'a Path>,
    pub protocols: Vec<Protocol>,
    /// Fast steps T.
    pub steps: usize,
    /// Draws S.
    pub samples: usize,
    /// Only the first documents of every set.
    pub limit: Option<u64>,
}

/// What became of a set: a result for every protocol, or why there is none.
pub struct Judged {
    pub set: Set,
    pub results: Vec<(Protocol, Value)>,
    /// Whether the model has learnt from one of its files.
    pub learnt: bool,
    pub error: Option<Error>,
}

/// Scores what has not been scored yet and returns everything, in the order of the suite; `None` if an interrupt stopped it.
///
/// # Errors
/// A suite file or settings that cannot be, and results that cannot be kept. What is wrong with a set is in its [`Judged`].
pub fn run(run: &Run, model: &mut Loaded, request: &Request, device: &Device) -> Result<Option<Vec<Judged>>> {
    let mut sets = file::read(request.file, request.data)?;
    sets.iter_mut().for_each(|set| set.documents = set.documents.into_iter().chain(request.limit).min());
    let mut config = model.config.clone();
    config.fast.steps = request.steps;
    config.resolved()?;
    let path = request.results.map_or_else(|| run.path().join(RESULTS), Path::to_path_buf);
    let tokenizer = lab::text::tokenizer(config.data.tokenizer);
    let gpt2 = (tokenizer.name() != "gpt2").then(|| lab::text::tokenizer(Name::Gpt2));
    check_results(&path)?;
    let mut kept = HashMap::new();
    let (file, lines) = json::Lines::open::<serde_json::Value>(&path, |line| line.get("key").is_some())?;
    for line in lines {
        let line = json::from_serde(&line)?;
        if let Ok(key) = line.read("key", Value::as_str) {
            kept.insert(key.to_string(), line.clone());
        }
    }
    let device = if matches!(device, Device::Cpu) { "cpu" } else { "cuda" };
    let guard = Guard::new()?;
    let mut suite = Suite {
        run,
        learnt: TrainingText::of(run)?,
        config,
        device,
        begun: Begun::beside(&path),
        path,
        file,
        kept,
        guard,
        evaluators: Vec::new(),
        tokenizer,
        gpt2,
    };
    let mut judged = Vec::new();
    for set in sets {
        let Some(set) = suite.judge(set, model, request)? else {
            note(format_args!(
                "interrupted: results are kept in {}; the same command goes on from where it is",
                suite.path.display()
            ));
            return Ok(None);
        };
        judged.push(set);
    }
    Ok(Some(judged))
}

/// That nothing else than results lies where they are to be kept: what is no line of them would be cut off. The last line may
/// be one that an interrupt left unfinished.
fn check_results(path: &Path) -> Result<()> {
    if path.exists() && !path.is_file() {
        return Err(Error::usage(format!("{} is no regular file: name another by --results", path.display())));
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", path, &error)),
    };
    let mut lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let unfinished = lines.pop().unwrap_or_default();
    let is_result = |line: &&[u8]| json::parse(line).is_ok_and(|value| value.get("key").is_some());
    let foreign = lines.iter().position(|line| !is_result(line));
    let is_begun = unfinished.starts_with(b"{\"key\":") || b"{\"key\":".starts_with(unfinished);
    let foreign = foreign.or((!is_begun).then_some(lines.len()));
    foreign.map_or(Ok(()), |line| {
        Err(Error::usage(format!(
            "{}:{}: is no result of a suite, and results would replace it: name another file by --results",
            path.display(),
            line + 1
        )))
    })
}

struct Suite<'a> {
    run: &'a Run,
    learnt: TrainingText,
    config: Config,
    device: &'static str,
    path: PathBuf,
    file: json::Lines,
    begun: Begun,
    kept: HashMap<String, Value>,
    guard: Guard,
    evaluators: Vec<(Protocol, Evaluator)>,
    tokenizer: Arc<dyn Tokenizer>,
    gpt2: Option<Arc<dyn Tokenizer>>,
}

impl Suite<'_> {
    /// `None` if an interrupt came before all was finished.
    fn judge(&mut self, set: Set, model: &mut Loaded, request: &Request) -> Result<Option<Judged>> {
        let mut judged = Judged { results: Vec::new(), learnt: false, error: None, set };
        let set = &judged.set;
        let data = match self.digest(set) {
            Err(_) if self.guard.asked() => return Ok(None),
            Ok((data, learnt)) => {
                judged.learnt = learnt;
                if learnt {
                    note_learnt(self.run, title(set));
                }
                data
            }
            Err(error) => {
                note(format_args!("{}: {error}", title(set)));
                judged.error = Some(error);
                return Ok(Some(judged));
            }
        };
        let mut results: Vec<(Protocol, Option<Value>)> = Vec::new();
        for &protocol in &request.protocols {
            let result = self.kept.get(&self.key(set, &data, model, request, protocol)).cloned();
            if result.is_some() {
                note(format_args!("{} {}: kept from {}", title(set), protocol.name(), self.path.display()));
            }
            results.push((protocol, result));
        }
        while let Some(&(first, _)) = results.iter().find(|(_, result)| result.is_none()) {
            if self.guard.asked() {
                return Ok(None);
            }
            let open = results.iter_mut().filter(|(protocol, result)| result.is_none() && protocol.shares_draws(first));
            let (protocols, places): (Vec<_>, Vec<_>) = open.map(|(protocol, result)| (*protocol, result)).unzip();
            self.prepare(first, model, request)?;
            let keys: Vec<String> =
                protocols.iter().map(|&protocol| self.key(set, &data, model, request, protocol)).collect();
            match self.score(set, &protocols, &keys, model) {
                Ok(scored) => {
                    for ((protocol, place), scored) in protocols.iter().zip(places).zip(scored) {
                        let result = self.result(set, &data, judged.learnt, model, request, *protocol, &scored);
                        self.file.write(&result)?;
                        *place = Some(result);
                    }
                    self.file.sync()?;
                    self.begun.clear(&keys)?;
                }
                Err(error) if self.begun.is_broken => return Err(error),
                Err(_) if self.guard.asked() => return Ok(None),
                Err(error) => {
                    note(format_args!("{}: {error}", title(set)));
                    judged.error = Some(error);
                    break;
                }
            }
        }
        let finished = results.into_iter().filter_map(|(protocol, result)| result.map(|result| (protocol, result)));
        judged.results = finished.collect();
        Ok(Some(judged))
    }

    /// The digest of a set's files, and whether the model has learnt from one.
    fn digest(&self, set: &Set) -> Result<(String, bool)> {
        let bar = bar(set.bytes()?, "{msg}  {bar:24} {bytes}/{total_bytes}  ETA {eta}");
        bar.set_message(format!("{} sha256", title(set)));
        let data = set.sha256(|done| {
            bar.set_position(done);
            self.guard.check()
        });
        bar.finish_and_clear();
        Ok((data?, self.learnt.has(&set.files)?))
    }

    /// Everything that a figure depends on, in a hash.
    fn key(&self, set: &Set, data: &str, model: &Loaded, request: &Request, protocol: Protocol) -> String {
        let on = [
            // How texts are read and scored is a part of them.
            SOURCES.to_string(),
            self.device.to_string(),
            model.weights.clone(),
            serde_json::to_string(&self.config).unwrap_or_default(),
            data.to_string(),
            set.reading(),
            protocol.name().to_string(),
            request.samples.to_string(),
        ];
        sha256(on.join("\n"))[..16].into()
    }

    /// Plans the evaluation by a protocol and those that share its draws, once for all sets.
    fn prepare(&mut self, protocol: Protocol, model: &mut Loaded, request: &Request) -> Result<()> {
        if self.evaluators.iter().all(|(planned, _)| !planned.shares_draws(protocol)) {
            let (config, store) = (&self.config, &mut model.store);
            let evaluator = Evaluator::new(config, protocol, request.steps, request.samples, &model.params, store)?;
            config.check_room(store, Work::Evaluation)?;
            self.evaluators.push((protocol, evaluator));
        }
        Ok(())
    }

    /// Scores a set by protocols that share their draws, from where an interrupt has left it; `keys` are theirs.
    fn score(&mut self, set: &Set, protocols: &[Protocol], keys: &[String], model: &mut Loaded) -> Result<Vec<Scored>> {
        let started = Instant::now();
        let planned = self.evaluators.iter().find(|(planned, _)| planned.shares_draws(protocols[0]));
        let (_, evaluator) = planned.expect("it is planned");
        let names = protocols.iter().map(|protocol| protocol.name()).collect::<Vec<_>>().join(", ");
        let mut sequences = Sequences::new(set, &self.tokenizer, self.gpt2.clone(), self.config.model.seq)?;
        let bar = match set.documents {
            Some(limit) => bar(limit, "{msg}  {bar:24} {pos}/{len} documents  ETA {eta}"),
            None => bar(set.bytes()?, "{msg}  {bar:24} {bytes}/{total_bytes}  ETA {eta}"),
        };
        let begun = self.begun.of(keys);
        if let Some((tallies, _)) = &begun {
            note(format_args!("{} {names}: goes on behind {} sequences", title(set), tallies[0].sequences));
        }
        let (mut tallies, spent) = begun.unwrap_or_else(|| (vec![Tally::default(); protocols.len()], 0.0));
        let seconds = || spent + started.elapsed().as_secs_f64();
        let scored = sequences.score(
            evaluator,
            protocols,
            &self.config,
            &mut model.store,
            &mut tallies,
            |sequences, tallies| {
                bar.set_position(if set.documents.is_some() { sequences.documents() } else { sequences.consumed() });
                bar.set_message(format!("{} {names} {:.3} bits/byte", title(set), tallies[0].bits_per_byte()));
                let uninterrupted = self.guard.check();
                if uninterrupted.is_err() || self.begun.is_due() {
                    self.begun.save(keys, tallies, seconds())?;
                }
                uninterrupted
            },
        );
        bar.finish_and_clear();
        scored?;
        let seconds = seconds();
        let left_out = sequences.left_out();
        // Protocols that do not share draws read the same records again, of which once is enough.
        if let Some(place) = left_out.first.as_ref().filter(|_| std::ptr::eq(evaluator, &self.evaluators[0].1)) {
            note(format_args!("{place}: no text, the first of {} records or files left out", left_out.documents));
        }
        note(format_args!("{} {names}: {} sequences in {seconds:.0} s", title(set), tallies[0].sequences));
        let scored = protocols.iter().zip(tallies).map(|(protocol, tally)| {
            // Half of every sequence is half of no known number of GPT-2's tokens.
            let gpt2_tokens = match (protocol, sequences.gpt2_tokens()) {
                (Protocol::Prefix, Some(_)) => None,
                (_, counted) => Some(counted.unwrap_or(tally.tokens)),
            };
            Scored { documents: sequences.documents(), left_out: left_out.clone(), gpt2_tokens, seconds, tally }
        });
        Ok(scored.collect())
    }

    fn result(
        &self,
        set: &Set,
        data: &str,
        learnt: bool,
        model: &Loaded,
        request: &Request,
        protocol: Protocol,
        scored: &Scored,
    ) -> Value {
        let tally = &scored.tally;
        let files: Vec<String> = set.files.iter().map(|path| path.display().to_string()).collect();
        let mut entries: Vec<(&str, Value)> = vec![
            ("key", self.key(set, data, model, request, protocol).into()),
            ("set", set.name.as_str().into()),
            ("protocol", protocol.name().into()),
            ("status", protocol.status().into()),
            ("files", files.into()),
            ("reading", set.reading().into()),
            ("data_sha256", data.into()),
            ("data_learnt", learnt.into()),
            ("weights_sha256", model.weights.as_str().into()),
            ("step", model.step.into()),
            ("seed", self.config.train.seed.into()),
            ("tokenizer", self.tokenizer.name().into()),
            ("sequence", self.config.model.seq.into()),
            ("samples", request.samples.into()),
            ("command", command().into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("sources", SOURCES.into()),
            ("device", self.device.into()),
            ("documents", scored.documents.into()),
            ("left_out", scored.left_out.documents.into()),
            ("first_left_out", scored.left_out.first.as_ref().map_or(Value::Null, |place| place.to_string().into())),
            ("sequences", tally.sequences.into()),
            ("tokens", tally.tokens.into()),
            ("bytes", tally.bytes.into()),
            ("gpt2_tokens", scored.gpt2_tokens.map_or(Value::Null, Into::into)),
            ("nats", tally.nats.into()),
            ("nll", tally.nll.into()),
            (if protocol == Protocol::Iwae { "rest" } else { "kl" }, tally.kl.into()),
            ("nats_per_token", tally.rate().into()),
            ("nats_per_token_error", tally.rate_error().into()),
            ("nats_per_token_draw_error", (tally.noise.sqrt() / tally.tokens as f64).into()),
            ("perplexity", tally.perplexity().into()),
            ("bits_per_byte", tally.bits_per_byte().into()),
            (
                "perplexity_per_gpt2_token",
                scored.gpt2_tokens.map_or(Value::Null, |n| (tally.nats / n as f64).exp().into()),
            ),
            ("mean_sequence_perplexity", tally.mean_perplexity().into()),
            ("seconds", scored.seconds.into()),
        ];
        if self.config.model.kind == ModelKind::Ltm {
            entries.push(("fast_steps", request.steps.into()));
        }
        Value::object(entries)
    }
}

/// What scoring a set by a protocol gives.
struct Scored {
    documents: u64,
    left_out: LeftOut,
    gpt2_tokens: Option<u64>,
    /// For all protocols that shared the draws.
    seconds: f64,
    tally: Tally,
}

/// A set's name as people know it.
fn title(set: &Set) -> &str {
    known(&set.name).map_or(&set.name, |known| known.title)
}

/// Prints everything, and says at the end if something is missing.
///
/// # Errors
/// If the output cannot be written, and if a set is missing.
pub fn show(run: &Run, model: &Loaded, request: &Request, judged: &[Judged], json: bool) -> Result<()> {
    match json {
        true => print(table::json(run, model, request, judged).pretty().trim_end())?,
        false => print(table::text(run, model, request, judged))?,
    }
    let missing: Vec<&str> =
        judged.iter().filter(|judged| judged.error.is_some()).map(|judged| judged.set.name.as_str()).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error::new(format!(
            "{} of {} sets are missing from the table: {}",
            missing.len(),
            judged.len(),
            missing.join(", ")
        ))),
    }
}
