use super::documents::{Counts, read};
use super::{Set, sets};
use crate::eval::{Figures, Options};
use crate::text;
use engine::{Device, Error, Result};
use ltm::checkpoint::write_atomic;
use ltm::config::{Config, Tokenizer as Named, Work};
use ltm::data::{DataFile, Source, Tokenizer};
use ltm::evaluate::{Evaluator, Protocol, Total};
use ltm::hash::sha256;
use ltm::json::{self, null_is_nan};
use ltm::ranks;
use ltm::run::{Loaded, Run, SOURCES};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The file of results in a run folder.
pub const RESULTS: &str = "suite.jsonl";

/// Time between saves: the most work that a crash loses, beside a batch.
const PAUSE: Duration = Duration::from_secs(20);

/// The options of a suite.
pub struct Request<'a> {
    /// The suite file.
    pub file: &'a Path,
    /// The base folder of its relative paths.
    pub data: Option<&'a Path>,
    /// The file of results; by default in the run folder.
    pub results: Option<&'a Path>,
    /// Options of the evaluation; the limit is a number of documents per set.
    pub options: Options,
    /// The command line, to reproduce the figures.
    pub command: String,
}

/// Observes a running suite.
pub trait Watch {
    /// Receives a note.
    fn note(&self, line: String);
    /// Receives progress: bytes of files, or sequences.
    ///
    /// # Errors
    /// If the suite should stop.
    fn progress(&self, label: &str, done: u64, of: u64) -> Result<()>;
    /// Whether the suite should stop.
    fn stops(&self) -> bool;
}

/// A result: a line of the file, with the same names.
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
    #[serde(deserialize_with = "null_is_nan")]
    pub(crate) nats_per_token_error: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub(crate) nats_per_token_draw_error: f64,
    pub(crate) perplexity_per_gpt2_token: Option<f64>,
    pub(crate) seconds: f64,
}

/// The outcome of a set: a result for every protocol, or the reason why it is missing.
#[derive(Serialize)]
pub struct Judged {
    /// The set.
    #[serde(flatten)]
    pub set: Set,
    /// Whether one of its files is training text of the run.
    #[serde(rename = "data_learnt")]
    pub is_training_text: bool,
    /// The results, in the order of the protocols asked for.
    pub results: Vec<Entry>,
    /// The reason if results are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// The progress of protocols that share their draws: a file beside the results until they have finished.
#[derive(Default, Serialize, Deserialize)]
struct Begun {
    totals: Vec<Total>,
    seconds: f64,
}

/// What is to be scored in a set.
struct Text {
    /// The hash of its files.
    digest: String,
    /// The key of every protocol's result.
    keys: BTreeMap<Protocol, String>,
    /// Protocols without a result.
    open: Vec<Protocol>,
    /// Sequences, if there is such a protocol.
    source: Option<(Arc<dyn Source>, Counts)>,
}

/// A running suite. Finished results are kept in a file and reused while weights, data and settings are the same.
pub struct Suite<'a> {
    run: &'a Run,
    model: &'a mut Loaded,
    request: &'a Request<'a>,
    watch: &'a dyn Watch,
    config: Config,
    device: &'static str,
    path: PathBuf,
    /// Process 0 writes all files.
    file: Option<json::Lines>,
    kept: HashMap<String, Entry>,
    evaluators: Vec<(Protocol, Evaluator)>,
    tokenizer: Arc<dyn Tokenizer>,
    gpt2: Option<Arc<dyn Tokenizer>>,
}

impl<'a> Suite<'a> {
    /// Opens the file of results.
    ///
    /// # Errors
    /// If settings contradict each other, or the file is being written or has other content.
    pub fn new(
        run: &'a Run,
        model: &'a mut Loaded,
        request: &'a Request<'a>,
        device: &Device,
        watch: &'a dyn Watch,
    ) -> Result<Self> {
        let mut config = model.config.clone();
        config.fast.steps = request.options.steps;
        config.resolved()?;
        let path = request.results.map_or_else(|| run.path.join(RESULTS), Path::to_path_buf);
        let mut kept = Vec::new();
        if path.exists() {
            // A line that is not a result would be cut off.
            kept = json::read_lines::<Entry>(&path).map_err(|error| {
                Error::usage(format!("{error}: this is not a suite result, and results would overwrite it"))
            })?;
        }
        let mut file = None;
        if model.ranks.rank() == 0 {
            let (lines, whole) = json::Lines::open(&path, |_: &Entry| true)?;
            (file, kept) = (Some(lines), whole);
        }
        let own = config.data.tokenizer;
        Ok(Self {
            run,
            model,
            request,
            watch,
            device: device.name(),
            path,
            file,
            kept: kept.into_iter().map(|entry| (entry.key.clone(), entry)).collect(),
            evaluators: Vec::new(),
            tokenizer: text::tokenizer(own),
            gpt2: (own == Named::Bytes).then(|| text::tokenizer(Named::Gpt2)),
            config,
        })
    }

    /// Scores the remaining sets and returns all results, in the order of the suite; `None` if it was stopped.
    ///
    /// # Errors
    /// If the suite file is invalid. Errors of a set are in its [`Judged`].
    pub fn all(mut self) -> Result<Option<Vec<Judged>>> {
        let mut all = Vec::new();
        for mut set in sets(self.request.file, self.request.data)? {
            set.documents = set.documents.into_iter().chain(self.request.options.limit).min();
            let mut judged = Judged { set, results: Vec::new(), is_training_text: false, missing: None };
            if let Err(error) = self.judge(&mut judged) {
                // All have the same error.
                if ranks::any(&*self.model.ranks, self.watch.stops())? {
                    self.watch.note(format!(
                        "interrupted: results are kept in {}; the same command continues",
                        self.path.display()
                    ));
                    return Ok(None);
                }
                self.watch.note(format!("{}: {error}", judged.set.title));
                judged.missing = Some(error.to_string());
            }
            all.push(judged);
        }
        Ok(Some(all))
    }

    fn judge(&mut self, judged: &mut Judged) -> Result<()> {
        let processes = self.model.ranks.clone();
        let text = ranks::all(&*processes, self.read(judged))?;
        let open: Vec<&str> = text.open.iter().map(|protocol| protocol.name()).collect();
        ranks::agree(&*processes, &[("data", text.digest.clone()), ("unfinished protocols", open.join(", "))])?;
        let groups = Protocol::groups(&text.open);
        let scored = groups.iter().try_for_each(|group| self.score(judged, &text, group));
        let protocols = &self.request.options.protocols;
        let results = protocols.iter().filter_map(|protocol| self.kept.get(&text.keys[protocol]).cloned());
        judged.results = results.collect();
        scored
    }

    /// The text of a set, unless it has all results.
    fn read(&self, judged: &mut Judged) -> Result<Text> {
        let Set { files, title, .. } = &judged.set;
        let (watch, path) = (self.watch, self.path.display());
        let bytes = text::prepare::input_bytes(files)?;
        let known = files.iter().map(|path| DataFile::of(path)).collect::<Result<Vec<_>>>()?;
        let digest = DataFile::digest(&known);
        judged.is_training_text = self.run.was_trained_on_one_of(&known)?;
        let Options { protocols, .. } = &self.request.options;
        let key = |&protocol: &Protocol| (protocol, self.key(&judged.set, &digest, protocol));
        let keys: BTreeMap<Protocol, String> = protocols.iter().map(key).collect();
        let (kept, open): (Vec<Protocol>, Vec<Protocol>) =
            protocols.iter().partition(|&protocol| self.kept.contains_key(&keys[protocol]));
        kept.iter().for_each(|protocol| watch.note(format!("{title} {}: kept from {path}", protocol.name())));
        let mut source = None;
        if !open.is_empty() {
            let (gpt2, sequence) = (self.gpt2.as_deref(), self.config.model.seq);
            let (text, counts) = read(&judged.set, &self.tokenizer, gpt2, sequence, |done| {
                watch.progress(&format!("{title} tokens"), done, bytes)
            })?;
            if let Some(place) = &counts.first_left_out {
                watch.note(format!("{place}: no text, the first of {} skipped records", counts.left_out));
            }
            source = Some((text, counts));
        }
        Ok(Text { digest, keys, open, source })
    }

    /// A hash of everything that a figure depends on.
    fn key(&self, set: &Set, data_sha256: &str, protocol: Protocol) -> String {
        // The hash of the sources covers how texts are read and scored.
        let program = (SOURCES, self.device, &self.model.weights, &self.config);
        sha256(json::line(&(program, data_sha256, set.reading(), protocol, self.request.options.samples)))[..16].into()
    }

    /// Scores a set by protocols that share their draws; continues after an interrupt.
    fn score(&mut self, judged: &Judged, text: &Text, group: &[Protocol]) -> Result<()> {
        let Options { steps, samples, .. } = self.request.options;
        let (watch, model, config) = (self.watch, &mut *self.model, &self.config);
        let Text { digest, keys, source: Some((source, counts)), .. } = text else { return Ok(()) };
        let processes = model.ranks.clone();
        let is_planned = |(planned, _): &(Protocol, Evaluator)| planned.shares_draws(group[0]);
        if !self.evaluators.iter().any(is_planned) {
            let evaluator = Evaluator::new(config, group[0], steps, samples, &model.params, &mut model.store)?;
            ranks::all(&*processes, config.check_room(&model.store, Work::Evaluation))?;
            self.evaluators.push((group[0], evaluator));
        }
        let (_, evaluator) = self.evaluators.iter_mut().find(|planned| is_planned(planned)).expect("it is planned");
        evaluator.cut(judged.set.chunking, model.lengths.as_ref());
        evaluator.ranks = processes.clone();
        let names = group.iter().map(|protocol| protocol.name()).collect::<Vec<_>>().join(", ");
        let title = format!("{} {names}", judged.set.title);
        let mut path = self.path.clone().into_os_string();
        group.iter().for_each(|protocol| path.push(format!(".{}", keys[protocol])));
        path.push(".begun");
        let path = Path::new(&path);
        let begun = json::read(path).ok().filter(|begun: &Begun| begun.totals.len() == group.len());
        let Begun { mut totals, seconds: spent } = begun.unwrap_or_default();
        ranks::agree(&*processes, &[("progress", json::line(&totals))])?;
        if let Some(total) = totals.first() {
            watch.note(format!("{title}: continues after {} sequences", total.sequences));
        }
        totals.resize(group.len(), Total::default());
        let started = Instant::now();
        let mut saved: Option<Instant> = None;
        let seconds = || spent + started.elapsed().as_secs_f64();
        let count = source.samples().expect("a set ends");
        let save = |totals: &[Total]| match processes.rank() {
            0 => write_atomic(path, json::line(&Begun { totals: totals.to_vec(), seconds: seconds() }).as_bytes()),
            _ => Ok(()),
        };
        ranks::all(&*processes, watch.progress(&title, totals[0].sequences, count))?;
        evaluator.draws(&mut model.store, source, totals[0].sequences..count, |sequences, done| {
            for draws in &sequences {
                for (total, &protocol) in totals.iter_mut().zip(group) {
                    total.add(&draws.score(protocol)?);
                }
            }
            let mut done_so_far = Ok(());
            if saved.is_none_or(|at| at.elapsed() >= PAUSE) {
                done_so_far = save(&totals);
                saved = Some(Instant::now());
            }
            let label = format!("{title} {:.3} bits/byte", totals[0].bits_per_byte());
            let going = ranks::all(&*processes, done_so_far.and_then(|()| watch.progress(&label, done, count)));
            if going.is_err() {
                save(&totals)?;
            }
            going
        })?;
        let seconds = seconds();
        watch.note(format!("{title}: {count} sequences in {seconds:.0} s"));
        let mut entries = Vec::new();
        for (protocol, total) in group.iter().zip(&totals) {
            // The number of GPT-2 tokens in second halves is unknown.
            let gpt2_tokens = match (protocol, &self.gpt2) {
                (_, None) => Some(total.tokens),
                (Protocol::Prefix, _) => None,
                _ => Some(counts.gpt2_tokens),
            };
            let per_token = total.per_token();
            let entry = Entry {
                key: keys[protocol].clone(),
                set: judged.set.name.clone(),
                figures: Figures::of(*protocol, config.model.kind, total),
                files: judged.set.files.iter().map(|path| path.display().to_string()).collect(),
                reading: judged.set.reading(),
                data_sha256: digest.clone(),
                data_learnt: judged.is_training_text,
                weights_sha256: model.weights.clone(),
                step: model.step,
                seed: config.train.seed,
                tokenizer: self.tokenizer.name().to_string(),
                sequence: config.model.seq,
                samples,
                fast_steps: config.model.kind.infers().then_some(steps),
                command: self.request.command.clone(),
                version: env!("CARGO_PKG_VERSION").into(),
                sources: SOURCES.into(),
                device: self.device.into(),
                documents: counts.documents,
                left_out: counts.left_out,
                first_left_out: counts.first_left_out.as_ref().map(ToString::to_string),
                gpt2_tokens,
                nats_per_token: per_token.mean,
                nats_per_token_error: per_token.error,
                nats_per_token_draw_error: total.draw_error() / total.tokens as f64,
                perplexity_per_gpt2_token: gpt2_tokens.map(|n| (total.nats / n as f64).exp()),
                seconds,
            };
            entries.push(entry);
        }
        let written = self.file.as_mut().map_or(Ok(()), |file| {
            entries.iter().try_for_each(|entry| file.write(entry))?;
            file.sync()?;
            fs::remove_file(path).map_err(|error| Error::io("remove", path, &error))
        });
        self.kept.extend(entries.into_iter().map(|entry| (entry.key.clone(), entry)));
        ranks::all(&*processes, written)
    }
}
