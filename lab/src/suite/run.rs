use super::begun::Begun;
use super::documents::{Read, read};
use super::{Set, sets};
use crate::eval::Figures;
use crate::text;
use engine::{Device, Error, Result};
use ltm::config::{Config, ModelKind, Tokenizer as Named, Work};
use ltm::data::Tokenizer;
use ltm::evaluate::{Evaluator, Protocol, Total};
use ltm::hash::{sha256, sha256_files_watched};
use ltm::json::{self, finite_or_null};
use ltm::run::{Loaded, Run, SOURCES};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
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
    /// The protocols, in the order of the table.
    pub protocols: Vec<Protocol>,
    /// Fast steps T.
    pub steps: usize,
    /// Draws S.
    pub samples: usize,
    /// Only the first documents of every set.
    pub limit: Option<u64>,
    /// The command line, for whoever wants the figures again.
    pub command: String,
}

/// Who watches a suite at work.
pub trait Watch {
    /// Takes a line about the work.
    fn note(&self, line: String);
    /// Takes how much of something is done: bytes of files, or sequences.
    fn progress(&self, label: &str, done: u64, of: u64);
    /// Whether the suite is to stop.
    fn stops(&self) -> bool;
}

/// A result: a line of the file, by the names that it has there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub(crate) key: String,
    pub(crate) set: String,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    pub(crate) files: Vec<String>,
    pub(crate) reading: String,
    pub(crate) data_sha256: String,
    pub(crate) data_learnt: bool,
    pub(crate) weights_sha256: String,
    pub(crate) step: u64,
    pub(crate) seed: u64,
    pub(crate) tokenizer: String,
    pub(crate) sequence: usize,
    pub(crate) samples: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fast_steps: Option<usize>,
    pub(crate) command: String,
    pub(crate) version: String,
    pub(crate) sources: String,
    pub(crate) device: String,
    pub(crate) documents: u64,
    pub(crate) left_out: u64,
    pub(crate) first_left_out: Option<String>,
    pub(crate) gpt2_tokens: Option<u64>,
    pub(crate) nats_per_token: f64,
    #[serde(with = "finite_or_null")]
    pub(crate) nats_per_token_error: f64,
    #[serde(with = "finite_or_null")]
    pub(crate) nats_per_token_draw_error: f64,
    pub(crate) perplexity_per_gpt2_token: Option<f64>,
    pub(crate) seconds: f64,
}

/// What became of a set: a result for every protocol, or why there is none.
pub struct Judged {
    /// The set.
    pub set: Set,
    /// The results, in the order of the protocols asked for.
    pub results: Vec<Entry>,
    /// Whether one of its files is training text of the run.
    pub is_training_text: bool,
    /// Why results are missing.
    pub error: Option<Error>,
}

/// A suite under way. What is finished is kept in a file and is not done again while weights, data and settings are the same.
pub struct Suite<'a> {
    run: &'a Run,
    model: &'a mut Loaded,
    request: &'a Request<'a>,
    watch: &'a dyn Watch,
    config: Config,
    device: &'static str,
    path: PathBuf,
    file: json::Lines,
    begun: Begun,
    kept: HashMap<String, Entry>,
    evaluators: Vec<(Protocol, Evaluator)>,
    tokenizer: Arc<dyn Tokenizer>,
    gpt2: Option<Arc<dyn Tokenizer>>,
}

/// A set's files: their digest, and whether the run was trained on one.
struct Files {
    sha256: String,
    is_training_text: bool,
}

impl<'a> Suite<'a> {
    /// Opens the file of results.
    ///
    /// # Errors
    /// Settings that contradict each other, and a file that is being written or holds something else.
    pub fn new(
        run: &'a Run,
        model: &'a mut Loaded,
        request: &'a Request<'a>,
        device: &Device,
        watch: &'a dyn Watch,
    ) -> Result<Self> {
        let mut config = model.config.clone();
        config.fast.steps = request.steps;
        config.resolved()?;
        let path = request.results.map_or_else(|| run.path().join(RESULTS), Path::to_path_buf);
        if path.exists() {
            // What is no line of results would be cut off.
            json::read_lines::<Entry>(&path).map_err(|error| {
                Error::usage(format!("{error}: this is no result of a suite, and results would replace it"))
            })?;
        }
        let (file, kept) = json::Lines::open(&path, |_: &Entry| true)?;
        let own = config.data.tokenizer;
        Ok(Self {
            run,
            model,
            request,
            watch,
            device: if matches!(device, Device::Cpu) { "cpu" } else { "cuda" },
            begun: Begun::beside(&path),
            path,
            file,
            kept: kept.into_iter().map(|entry| (entry.key.clone(), entry)).collect(),
            evaluators: Vec::new(),
            tokenizer: text::tokenizer(own),
            gpt2: (own == Named::Bytes).then(|| text::tokenizer(Named::Gpt2)),
            config,
        })
    }

    /// Scores what has not been scored yet and returns everything, in the order of the suite; `None` if it was stopped.
    ///
    /// # Errors
    /// A suite file that cannot be, and results that cannot be kept. What is wrong with a set is in its [`Judged`].
    pub fn all(mut self) -> Result<Option<Vec<Judged>>> {
        let mut all = Vec::new();
        for mut set in sets(self.request.file, self.request.data)? {
            set.documents = set.documents.into_iter().chain(self.request.limit).min();
            let mut judged = Judged { set, results: Vec::new(), is_training_text: false, error: None };
            if let Err(error) = self.judge(&mut judged) {
                if self.begun.is_broken {
                    return Err(error);
                }
                if self.watch.stops() {
                    self.watch.note(format!(
                        "interrupted: results are kept in {}; the same command goes on from where it is",
                        self.path.display()
                    ));
                    return Ok(None);
                }
                self.watch.note(format!("{}: {error}", judged.set.title()));
                judged.error = Some(error);
            }
            all.push(judged);
        }
        Ok(Some(all))
    }

    /// An error that ends what is under way, if the suite is to stop.
    fn check(&self) -> Result<()> {
        if self.watch.stops() { Err(Error::new("interrupted")) } else { Ok(()) }
    }

    fn judge(&mut self, judged: &mut Judged) -> Result<()> {
        let set = &judged.set;
        let bytes = text::prepare::input_bytes(&set.files)?;
        let sha256 = sha256_files_watched(&set.files, |done| {
            self.watch.progress(&format!("{} sha256", set.title()), done, bytes);
            self.check()
        })?;
        let files = Files { sha256, is_training_text: self.run.was_trained_on_one_of(&set.files)? };
        judged.is_training_text = files.is_training_text;
        if files.is_training_text {
            let (run, title) = (self.run.path().display(), set.title());
            self.watch.note(format!("note: {run} was trained on {title}: these numbers are not of unseen text"));
        }
        let keys: Vec<_> = self.request.protocols.iter().map(|&p| (p, self.key(set, &files, p))).collect();
        for (protocol, _) in keys.iter().filter(|(_, key)| self.kept.contains_key(key)) {
            let (title, path) = (set.title(), self.path.display());
            self.watch.note(format!("{title} {}: kept from {path}", protocol.name()));
        }
        let open: Vec<_> = keys.iter().filter(|(_, key)| !self.kept.contains_key(key)).collect();
        let open: Vec<Protocol> = open.into_iter().map(|(protocol, _)| *protocol).collect();
        let mut scored = Ok(());
        if !open.is_empty() {
            scored = self.score_all(set, &files, &open, bytes);
        }
        judged.results = keys.iter().filter_map(|(_, key)| self.kept.get(key).cloned()).collect();
        scored
    }

    /// Everything that a figure depends on, in a hash.
    fn key(&self, set: &Set, files: &Files, protocol: Protocol) -> String {
        let on = [
            // How texts are read and scored is a part of them.
            SOURCES.to_string(),
            self.device.to_string(),
            self.model.weights.clone(),
            serde_json::to_string(&self.config).unwrap_or_default(),
            files.sha256.clone(),
            set.reading(),
            protocol.name().to_string(),
            self.request.samples.to_string(),
        ];
        sha256(on.join("\n"))[..16].into()
    }

    fn score_all(&mut self, set: &Set, files: &Files, open: &[Protocol], bytes: u64) -> Result<()> {
        let title = set.title();
        let read = read(set, &self.tokenizer, self.gpt2.as_deref(), self.config.model.seq, |done| {
            self.watch.progress(&format!("{title} tokens"), done, bytes);
            self.check()
        })?;
        if let Some(place) = &read.first_left_out {
            self.watch.note(format!("{place}: no text, the first of {} records left out", read.left_out));
        }
        Protocol::groups(open).iter().try_for_each(|group| self.score(set, files, &read, group))
    }

    /// Plans the evaluation by a protocol and those that share its draws, once for all sets.
    fn prepare(&mut self, protocol: Protocol) -> Result<()> {
        if self.evaluators.iter().all(|(planned, _)| !planned.shares_draws(protocol)) {
            let Request { steps, samples, .. } = *self.request;
            let (params, store) = (&self.model.params, &mut self.model.store);
            let evaluator = Evaluator::new(&self.config, protocol, steps, samples, params, store)?;
            self.config.check_room(store, Work::Evaluation)?;
            self.evaluators.push((protocol, evaluator));
        }
        Ok(())
    }

    /// Scores a set by protocols that share their draws, from where an interrupt has left it.
    fn score(&mut self, set: &Set, files: &Files, read: &Read, protocols: &[Protocol]) -> Result<()> {
        self.check()?;
        self.prepare(protocols[0])?;
        let planned = self.evaluators.iter().find(|(planned, _)| planned.shares_draws(protocols[0]));
        let (_, evaluator) = planned.expect("it is planned");
        let started = Instant::now();
        let names = protocols.iter().map(|protocol| protocol.name()).collect::<Vec<_>>().join(", ");
        let title = format!("{} {names}", set.title());
        let keys: Vec<String> = protocols.iter().map(|&protocol| self.key(set, files, protocol)).collect();
        let begun = self.begun.of(&keys);
        if let Some((totals, _)) = &begun {
            self.watch.note(format!("{title}: goes on behind {} sequences", totals[0].sequences));
        }
        let (mut totals, spent) = begun.unwrap_or_else(|| (vec![Total::default(); protocols.len()], 0.0));
        let seconds = || spent + started.elapsed().as_secs_f64();
        let count = read.source.samples().expect("a set ends");
        let watch = self.watch;
        let begun = &mut self.begun;
        evaluator.draws(&mut self.model.store, &read.source, totals[0].sequences..count, |sequences, done| {
            for draws in &sequences {
                for (total, &protocol) in totals.iter_mut().zip(protocols) {
                    total.add(&draws.score(protocol)?);
                }
            }
            watch.progress(&format!("{title} {:.3} bits/byte", totals[0].bits_per_byte()), done, count);
            if watch.stops() || begun.is_due() {
                begun.save(&keys, &totals, seconds())?;
            }
            if watch.stops() { Err(Error::new("interrupted")) } else { Ok(()) }
        })?;
        let seconds = seconds();
        self.watch.note(format!("{title}: {count} sequences in {seconds:.0} s"));
        for ((&protocol, total), key) in protocols.iter().zip(&totals).zip(&keys) {
            let entry = self.entry(set, files, read, protocol, total, key, seconds);
            self.file.write(&entry)?;
            self.kept.insert(key.clone(), entry);
        }
        self.file.sync()?;
        self.begun.clear(&keys)
    }

    fn entry(
        &self,
        set: &Set,
        files: &Files,
        read: &Read,
        protocol: Protocol,
        total: &Total,
        key: &str,
        seconds: f64,
    ) -> Entry {
        // Half of every sequence is half of no known number of GPT-2's tokens.
        let gpt2_tokens = match (protocol, read.gpt2_tokens) {
            (Protocol::Prefix, Some(_)) => None,
            (_, counted) => Some(counted.unwrap_or(total.tokens)),
        };
        let per_token = total.per_token();
        Entry {
            key: key.into(),
            set: set.name.clone(),
            figures: Figures::of(protocol, total),
            files: set.files.iter().map(|path| path.display().to_string()).collect(),
            reading: set.reading(),
            data_sha256: files.sha256.clone(),
            data_learnt: files.is_training_text,
            weights_sha256: self.model.weights.clone(),
            step: self.model.step,
            seed: self.config.train.seed,
            tokenizer: self.tokenizer.name().into(),
            sequence: self.config.model.seq,
            samples: self.request.samples,
            fast_steps: (self.config.model.kind == ModelKind::Ltm).then_some(self.request.steps),
            command: self.request.command.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            sources: SOURCES.into(),
            device: self.device.into(),
            documents: read.documents,
            left_out: read.left_out,
            first_left_out: read.first_left_out.as_ref().map(ToString::to_string),
            gpt2_tokens,
            nats_per_token: per_token.mean,
            nats_per_token_error: per_token.error,
            nats_per_token_draw_error: total.draw_error() / total.tokens as f64,
            perplexity_per_gpt2_token: gpt2_tokens.map(|n| (total.nats / n as f64).exp()),
            seconds,
        }
    }
}
