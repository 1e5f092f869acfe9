//! Folders of shards: prepared ones with `dataset.json`, and others, whose file names determine the split.

use crate::config::Tokenizer;
use crate::json;
use engine::{Error, Result, file};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the manifest, which records the tokenizer and the sizes of the shards.
pub const MANIFEST: &str = "dataset.json";

const FORMAT: &str = "ltm tokens";
const VERSION: u32 = 2;

/// A split of the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training text.
    Train,
    /// Validation text.
    Validation,
}

impl Split {
    /// Its name in file names and `dataset.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }
}

/// The content of `dataset.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    version: u32,
    /// The tokenizer's name.
    pub tokenizer: Tokenizer,
    /// Its number of ids.
    pub vocab: usize,
    /// Training text.
    pub train: Part,
    /// Validation text; empty if none was held out.
    pub validation: Part,
}

/// The documents of one split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number of documents, not counting empty ones.
    pub documents: u64,
    /// Number of tokens, one end token per document included.
    pub tokens: u64,
    /// Bytes of text of these tokens.
    pub bytes: u64,
    /// The files. Their tokens are one stream: a document may continue in the next file.
    pub shards: Vec<ShardEntry>,
}

/// One file of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Name in the folder.
    pub file: String,
    /// Tokens in it.
    pub tokens: u64,
    /// SHA-256 of the file in hexadecimal; version 1 had none.
    #[serde(default)]
    pub sha256: String,
}

impl Manifest {
    /// The manifest of these two parts.
    pub fn new(tokenizer: Tokenizer, train: Part, validation: Part) -> Self {
        Self { format: FORMAT.into(), version: VERSION, tokenizer, vocab: tokenizer.vocab(), train, validation }
    }

    /// The split's documents.
    pub fn part(&self, split: Split) -> &Part {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }

    /// The entry for a file.
    pub(super) fn entry(&self, file: &Path) -> Option<&ShardEntry> {
        let name = file.file_name()?.to_str()?;
        self.train.shards.iter().chain(&self.validation.shards).find(|entry| entry.file == name)
    }

    /// Reads `folder`'s manifest; `None` if it has none.
    ///
    /// # Errors
    /// A file that cannot be read or is not a manifest.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST);
        if !path.exists() {
            return Ok(None);
        }
        Self::parse(&file::read(&path)?).map(Some).map_err(|error| error.at(path.display()))
    }

    /// The manifest that `text` holds.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let manifest: Self = json::from_bytes(text)?;
        if manifest.format != FORMAT {
            return Err(Error::new(format!("format is {:?}, not {FORMAT:?}", manifest.format)));
        }
        if manifest.version != VERSION {
            let version = manifest.version;
            return Err(Error::new(format!("version {version}; this program reads {VERSION}: prepare the data again")));
        }
        Ok(manifest)
    }
}

/// The shards of a folder for `split`, in order. Without a manifest these are files called `*.bin`: names with the word
/// val, valid, validation or test (`val.bin`, `fineweb_val_000000.bin`) are for validation, all others for training.
pub(super) fn shards(folder: &Path, split: Split) -> Result<Vec<PathBuf>> {
    if let Some(manifest) = Manifest::read(folder)? {
        return Ok(manifest.part(split).shards.iter().map(|shard| folder.join(&shard.file)).collect());
    }
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| Error::io("read", folder, &error))?;
    let mut files: Vec<_> =
        entries.iter().map(fs::DirEntry::path).filter(|path| named_split(path) == Some(split)).collect();
    files.sort();
    Ok(files)
}

/// The split of a shard by its name.
fn named_split(path: &Path) -> Option<Split> {
    let name = path.file_stem()?.to_string_lossy().to_lowercase();
    let for_validation = |word: &str| ["val", "valid", "validation", "test"].contains(&word);
    let any = name.split(|c: char| !c.is_alphanumeric()).any(for_validation);
    let split = if any { Split::Validation } else { Split::Train };
    is_shard(path).then_some(split)
}

/// Whether `path` is named like a file of tokens.
pub fn is_shard(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("bin"))
}

/// Whether `path` is a folder with validation shards.
///
/// # Errors
/// A path that cannot be read.
pub fn has_validation(path: &Path) -> Result<bool> {
    Ok(path.is_dir() && !shards(path, Split::Validation)?.is_empty())
}

/// The tokenizer recorded in prepared data; `None` for text and for shards of other programs.
///
/// # Errors
/// A manifest that cannot be read.
pub fn tokenizer_of(path: &Path) -> Result<Option<Tokenizer>> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let manifest = Manifest::read(folder)?.filter(|manifest| path.is_dir() || manifest.entry(path).is_some());
    Ok(manifest.map(|manifest| manifest.tokenizer))
}
