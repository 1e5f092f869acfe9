use crate::config::Tokenizer as Named;
use crate::config::{Chunking, Config};
use crate::corpus::Corpus;
use crate::data::batches::{LongDocuments, SampleInfo, Source, Tail};
use crate::data::{Dataset, Documents, Split, Stories, Windows, checksum, splits};
use engine::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Seed of the embedded corpus's held-out stories. No run trains on them: a run's own seed is below 2⁵³.
pub const HELD_OUT: u64 = 1 << 63;

/// Held-out stories used for validation during training.
const VALIDATION_STORIES: u64 = 1 << 20;

/// What a run learns from and is validated with.
#[derive(Clone)]
pub struct Material {
    /// To learn from.
    pub train: Arc<dyn Source>,
    /// Held out; `None` if nothing is.
    pub validation: Option<Arc<dyn Source>>,
    /// The files that all of it comes from; none for the embedded corpus.
    pub files: Vec<PathBuf>,
    /// Those of them in which what is learnt from lies.
    pub learnt: Vec<PathBuf>,
    /// Those of them in which what is held out lies.
    pub held_out: Vec<PathBuf>,
    /// Tells data and splits of them apart: a checksum of every token and of what is held out, or the embedded corpus's
    /// name.
    pub fingerprint: String,
}

/// Sequences to judge a model by.
#[derive(Clone)]
pub struct Scorable {
    /// The sequences.
    pub source: Arc<dyn Source>,
    /// The files that they come from; none for the embedded corpus.
    pub files: Vec<PathBuf>,
}

/// Opens the part of the file or folder at a path that is for a split.
pub type Open<'a> = &'a dyn Fn(&Path, Split) -> Result<Dataset>;

impl Material {
    /// Opens what a resolved configuration names, by `open`; the embedded corpus if it names nothing.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, holds tokens of another vocabulary or less than one sequence.
    pub fn open(config: &Config, open: Open<'_>) -> Result<Self> {
        let (data, seq) = (&config.data, config.model.seq);
        if data.paths.is_empty() {
            // The key `data.tokenizer` is checked against the stories' bytes here, where both are known.
            if data.tokenizer != Named::Bytes || data.chunking != Chunking::Documents {
                return Err(Error::usage(format!(
                    "the embedded corpus needs data.tokenizer = bytes and data.chunking = documents, not {} and {}: use --preset demo, or name your own text with --data",
                    data.tokenizer, data.chunking
                )));
            }
            if let Some(path) = &data.validation {
                return Err(Error::usage(format!(
                    "data.validation = {}: the embedded corpus has held-out stories of its own: leave it out, or name your own text with --data",
                    path.display()
                )));
            }
            return Ok(Self {
                train: Arc::new(Stories::new(Corpus::default(), config.train.seed, seq, None)?),
                validation: Some(held_out_stories(seq, VALIDATION_STORIES)?),
                files: Vec::new(),
                learnt: Vec::new(),
                held_out: Vec::new(),
                fingerprint: "embedded corpus".into(),
            });
        }
        let (mut train, mut validation, mut sums) = (Vec::new(), Vec::new(), Vec::new());
        let (mut files, mut learnt, mut scored) = (Vec::new(), Vec::new(), Vec::new());
        for path in &data.paths {
            let (learn, held_out) = split(path, config, open)?;
            add_files(&mut files, &learn);
            add_files(&mut learnt, &learn);
            if let Some(data) = &held_out {
                add_files(&mut files, data);
                add_files(&mut scored, data);
            }
            sums.extend(mark(Split::Train, &learn));
            sums.extend(held_out.iter().flat_map(|data| mark(Split::Validation, data)));
            train.push(sequences(learn, config, Tail::Drop)?);
            validation.extend(held_out.map(|data| sequences(data, config, Tail::Pad)).transpose()?);
        }
        if let Some(path) = &data.validation {
            let held_out = open(path, validation_split(path)?)?;
            add_files(&mut files, &held_out);
            add_files(&mut scored, &held_out);
            sums.extend(mark(Split::Validation, &held_out));
            validation.push(sequences(held_out, config, Tail::Pad)?);
        }
        let validation = (!validation.is_empty()).then(|| Chain::of(validation)).transpose()?;
        let fingerprint = format!("{:016x}", checksum::combine(sums));
        Ok(Self { train: Chain::of(train)?, validation, files, learnt, held_out: scored, fingerprint })
    }

    /// All sequences of the file or folder at `path`, every token of them, for an evaluation; of a folder with held-out
    /// shards those alone.
    ///
    /// # Errors
    /// As [`Material::open`].
    pub fn open_whole(path: &Path, config: &Config, open: Open<'_>) -> Result<Scorable> {
        let data = open(path, validation_split(path)?)?;
        let (tokens, window) = (data.len(), config.model.seq);
        if config.data.chunking == Chunking::Windows && tokens < window as u64 {
            return Err(Error::usage(format!(
                "{}: its {tokens} tokens make no complete window of {window}: name a longer text",
                path.display()
            )));
        }
        let mut files = Vec::new();
        add_files(&mut files, &data);
        Ok(Scorable { source: sequences(data, config, Tail::Pad)?, files })
    }
}

/// The first `count` held-out stories of the embedded corpus.
///
/// # Errors
/// If a story may be longer than `seq` tokens, or there are none.
pub fn held_out_stories(seq: usize, count: u64) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Stories::new(Corpus::default(), HELD_OUT, seq, Some(count))?))
}

/// What a fingerprint has of `data`: the tokens, which part of them, and for what. The same file with another split is
/// other data: what was held out must not be learnt from later.
fn mark(role: Split, data: &Dataset) -> [u64; 4] {
    let range = data.range();
    [role as u64, data.checksum(), range.start, range.end]
}

/// Each file once: what is held out of one is in the same file.
fn add_files(files: &mut Vec<PathBuf>, data: &Dataset) {
    for file in data.files() {
        if !files.iter().any(|known| known == file) {
            files.push(file.into());
        }
    }
}

fn validation_split(path: &Path) -> Result<Split> {
    Ok(if splits(path)?.contains(&Split::Validation) { Split::Validation } else { Split::Train })
}

/// What to learn from in `path`, and what is held out of it: shards made for that, else the end of the text.
fn split(path: &Path, config: &Config, open: Open<'_>) -> Result<(Dataset, Option<Dataset>)> {
    let whole = open(path, Split::Train)?;
    let fraction = config.data.validation_fraction;
    if config.data.validation.is_some() || fraction == 0.0 {
        return Ok((whole, None));
    }
    if splits(path)?.contains(&Split::Validation) {
        return Ok((whole, Some(open(path, Split::Validation)?)));
    }
    let (learn, held_out) = whole.hold_out(fraction)?;
    Ok((learn, Some(held_out)))
}

fn sequences(data: Dataset, config: &Config, tail: Tail) -> Result<Arc<dyn Source>> {
    Ok(match config.data.chunking {
        Chunking::Windows => Arc::new(Windows::new(data, config.model.seq, tail)?),
        // A document that is too long becomes several sequences, which are scored as such.
        Chunking::Documents => Arc::new(Documents::new(data, config.model.seq, LongDocuments::Split)?),
    })
}

/// Several sources, one behind the other.
struct Chain {
    parts: Vec<(u64, Arc<dyn Source>)>,
    samples: u64,
}

impl Chain {
    fn of(mut sources: Vec<Arc<dyn Source>>) -> Result<Arc<dyn Source>> {
        if sources.len() == 1 {
            return Ok(sources.remove(0));
        }
        let (mut parts, mut samples) = (Vec::new(), 0);
        for source in sources {
            let count =
                source.samples().ok_or_else(|| Error::new("a source without end cannot be followed by another"))?;
            parts.push((samples, source));
            samples += count;
        }
        Ok(Arc::new(Self { parts, samples }))
    }
}

impl Source for Chain {
    fn samples(&self) -> Option<u64> {
        Some(self.samples)
    }

    fn sequence(&self) -> usize {
        self.parts[0].1.sequence()
    }

    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo> {
        let (start, source) = &self.parts[self.parts.partition_point(|(start, _)| *start <= index) - 1];
        // The noise of a sample is keyed by its place in the chain, which is its own.
        Ok(SampleInfo { id: index as u32, ..source.fill(index - start, tokens, targets)? })
    }
}
