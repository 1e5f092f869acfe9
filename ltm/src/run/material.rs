use super::record::{Data, DataFile};
use crate::config::{Chunking, Config, Tokenizer};
use crate::corpus::Corpus;
use crate::data::{self, Bytes, Dataset, Sequences, Source, Split, Stories, Tail, has_validation};
use crate::hash::sha256;
use engine::{Alone, Collective, Error, Result};
use std::path::Path;
use std::sync::Arc;

/// Seeds of the embedded corpus's stories that no run trains on, because a run's own seed is below 2⁵³: those by which a
/// run or a person chooses, and those that numbers are reported on.
pub const VALIDATION_SEED: u64 = 1 << 63;
/// See [`VALIDATION_SEED`].
pub const REPORT_SEED: u64 = VALIDATION_SEED + 1;

/// Validation stories used during training.
const VALIDATION_STORIES: u64 = 1 << 20;

/// Training and validation text of a run, and who trains on it.
#[derive(Clone)]
pub struct Material {
    /// The processes that share the work, one unless set otherwise.
    pub ranks: Arc<dyn Collective>,
    /// Training text.
    pub training: Arc<dyn Source>,
    /// Validation text, if there is any.
    pub validation: Option<Arc<dyn Source>>,
    /// The files with validation text.
    pub validation_files: Vec<data::DataFile>,
    /// A warning if the model trains on some of the validation text.
    pub seen: Option<String>,
    /// A warning if two files have the same text, so that the model trains on it twice as often.
    pub repeated: Option<String>,
    /// The tokenizer.
    pub tokenizer: Arc<dyn data::Tokenizer>,
    /// The record of both.
    pub data: Data,
}

/// Opens the part of the file or folder at a path that is for a split.
pub type Open<'a> = &'a dyn Fn(&Path, Split) -> Result<Dataset>;

impl Material {
    /// Opens the data of a resolved configuration with `open`, or the embedded corpus if it names none.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, has tokens of another vocabulary, or has less than one sequence.
    pub fn open(config: &Config, open: Open<'_>) -> Result<Self> {
        let data = &config.data;
        if data.paths.is_empty() {
            if data.tokenizer != Tokenizer::Bytes || data.chunking != Chunking::Documents || data.validation.is_some() {
                return Err(Error::usage(
                    "the embedded corpus needs data.tokenizer = bytes, data.chunking = documents and no data.validation: use --preset demo, or name your own text with --data",
                ));
            }
            return Ok(Self {
                ranks: Arc::new(Alone),
                training: Arc::new(Stories::new(Corpus::of(config)?, config.train.seed, None)),
                validation: Some(stories(config, VALIDATION_SEED, VALIDATION_STORIES)?),
                validation_files: Vec::new(),
                seen: None,
                repeated: None,
                tokenizer: Arc::new(Bytes),
                data: Data { fingerprint: "embedded corpus".into(), files: Vec::new() },
            });
        }
        let mut training = Vec::new();
        let mut validation = Vec::new();
        for path in &data.paths {
            let (train, rest) = split(path, config, open)?;
            training.push(train);
            validation.extend(rest);
        }
        if let Some(path) = &data.validation {
            validation.push(open(path, validation_split(path)?)?);
        }
        let [learnt, held] =
            [&training, &validation].map(|data| data.iter().flat_map(Dataset::stretches).collect::<Vec<_>>());
        let seen = held.iter().find_map(|one| Some((&one.file.path, &one.shared_with(&learnt)?.path)));
        let seen = seen.map(|(held, learnt)| {
            let (held, learnt) = (held.display(), learnt.display());
            format!(
                "validation text of {held} is also training text ({learnt}), so validation numbers are not for \
                     unseen text"
            )
        });
        let mut all = learnt.iter().enumerate();
        let repeated = all.find_map(|(i, one)| Some((&one.file.path, &one.shared_with(&learnt[i + 1..])?.path)));
        let repeated = repeated.map(|(a, b)| {
            format!("{} and {} have the same text, so the model trains on it twice as often", a.display(), b.display())
        });
        let parts = training.iter().map(|data| (Split::Train, data));
        let mut record = Data { fingerprint: String::new(), files: Vec::new() };
        for (split, data) in parts.chain(validation.iter().map(|data| (Split::Validation, data))) {
            // The files, the token ranges, and their use. The same file with another split counts as other data,
            // because validation text must not become training text later.
            let digests: String = data.files().map(|file| format!(" {}", file.sha256)).collect();
            record.fingerprint += &format!("{} {:?}{digests}\n", split.name(), data.range);
            for file in data.files() {
                if record.files.iter().all(|known| known.file.path != file.path) {
                    record.files.push(DataFile { file: file.clone(), training: split == Split::Train });
                }
            }
        }
        record.fingerprint = sha256(record.fingerprint);
        let mut validation_files: Vec<_> = validation.iter().flat_map(Dataset::files).cloned().collect();
        validation_files.dedup();
        Ok(Self {
            ranks: Arc::new(Alone),
            validation_files,
            seen,
            repeated,
            // There is at least one path.
            tokenizer: training[0].tokenizer.clone(),
            data: record,
            training: sequences(training, config, Tail::Drop)?,
            validation: (!validation.is_empty()).then(|| sequences(validation, config, Tail::Pad)).transpose()?,
        })
    }

    /// All sequences of the file or folder at `path`, every token of them, for an evaluation, and their files; of a folder
    /// with validation shards those alone. A single token is a sequence too.
    pub fn open_whole(path: &Path, config: &Config, open: Open<'_>) -> Result<(Arc<dyn Source>, Vec<data::DataFile>)> {
        let data = open(path, validation_split(path)?)?;
        let files = data.files().cloned().collect();
        Ok((sequences(vec![data], config, Tail::Pad)?, files))
    }
}

/// The first `count` stories of the embedded corpus under `seed`.
///
/// # Errors
/// If the settings contradict each other.
pub fn stories(config: &Config, seed: u64, count: u64) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Stories::new(Corpus::of(config)?, seed, Some(count))))
}

fn validation_split(path: &Path) -> Result<Split> {
    Ok(if has_validation(path)? { Split::Validation } else { Split::Train })
}

/// Training text in `path` and the validation text held out from it: validation shards, else the end of the text.
fn split(path: &Path, config: &Config, open: Open<'_>) -> Result<(Dataset, Option<Dataset>)> {
    let whole = open(path, Split::Train)?;
    let fraction = config.data.validation_fraction;
    if config.data.validation.is_some() || fraction == 0.0 {
        return Ok((whole, None));
    }
    if has_validation(path)? {
        return Ok((whole, Some(open(path, Split::Validation)?)));
    }
    let (training, validation) = whole.set_apart(fraction)?;
    Ok((training, Some(validation)))
}

fn sequences(data: Vec<Dataset>, config: &Config, tail: Tail) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(Sequences::new(data, config.data.chunking, config.model.seq, tail)?))
}
