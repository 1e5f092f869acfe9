//! `dataset.json`, which lies beside prepared shards: what they were made with, how much they hold, and their checksums.

use super::checksum;
use crate::json::{self, Value};
use engine::{Error, Result};
use std::fs;
use std::path::Path;

/// Name of the file.
pub const FILE: &str = "dataset.json";

/// Larger files are refused unread; a shard takes about a hundred bytes.
const LARGEST: u64 = 1 << 26;

/// Which part of the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For learning.
    Train,
    /// For validation only.
    Validation,
}

impl Split {
    /// As file names and `dataset.json` have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }
}

/// All of `dataset.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The tokenizer's name.
    pub tokenizer: String,
    /// Its number of ids.
    pub vocab: usize,
    /// Documents to learn from.
    pub train: Part,
    /// Documents to validate with; empty if none were set apart.
    pub validation: Part,
}

/// The documents of one split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Number of documents, not counting empty ones.
    pub documents: u64,
    /// Number of tokens, one end token per document included.
    pub tokens: u64,
    /// Bytes of text behind these tokens.
    pub bytes: u64,
    /// The files, whose tokens are one stream: a document may go on in the next file.
    pub shards: Vec<ShardEntry>,
}

/// One file of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardEntry {
    /// Name in the folder.
    pub file: String,
    /// Tokens in it.
    pub tokens: u64,
    /// [`checksum::checksum`] of its tokens as they lie in the file.
    pub checksum: u64,
}

impl Manifest {
    /// The split's documents.
    pub fn part(&self, split: Split) -> &Part {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }

    /// Reads `folder`'s manifest; `None` if it has none.
    ///
    /// # Errors
    /// A file that cannot be read or is not a manifest.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path, &error)),
            Ok(meta) if meta.len() > LARGEST => {
                return Err(Error::new(format!("{}: {} bytes is too large", path.display(), meta.len())));
            }
            Ok(_) => {}
        }
        let text = fs::read(&path).map_err(|error| Error::io("read", &path, &error))?;
        Self::parse(&text).map(Some).map_err(|error| error.at(path.display()))
    }

    /// The manifest that `text` holds.
    ///
    /// # Errors
    /// Whatever is not as [`Manifest::to_json`] writes it.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let value = json::parse(text)?;
        match value.read("format", Value::as_str)? {
            "ltm tokens" => {}
            other => return Err(Error::new(format!("format is {other:?}, not \"ltm tokens\""))),
        }
        match value.read("version", Value::as_u64)? {
            1 => {}
            other => return Err(Error::new(format!("version {other}; this program reads version 1"))),
        }
        Ok(Self {
            tokenizer: value.read("tokenizer", Value::as_str)?.into(),
            vocab: value.read("vocab", Value::as_usize)?,
            train: value.read("train", Part::from_json)?,
            validation: value.read("validation", Part::from_json)?,
        })
    }

    /// The text of `dataset.json`.
    pub fn to_json(&self) -> String {
        Value::object([
            ("format", Value::String("ltm tokens".into())),
            ("version", Value::Number(1.0)),
            ("tokenizer", Value::String(self.tokenizer.clone())),
            ("vocab", Value::Number(self.vocab as f64)),
            ("train", self.train.to_json()),
            ("validation", self.validation.to_json()),
        ])
        .pretty()
    }
}

impl Part {
    fn from_json(value: &Value) -> Result<Self> {
        let part = Self {
            documents: value.read("documents", Value::as_u64)?,
            tokens: value.read("tokens", Value::as_u64)?,
            bytes: value.read("bytes", Value::as_u64)?,
            shards: value.read("shards", |shards| shards.as_array()?.iter().map(ShardEntry::from_json).collect())?,
        };
        let sum: u64 = part.shards.iter().map(|shard| shard.tokens).fold(0, u64::saturating_add);
        match sum == part.tokens {
            true => Ok(part),
            false => Err(Error::new(format!("tokens is {}, but the shards have {sum} together", part.tokens))),
        }
    }

    fn to_json(&self) -> Value {
        Value::object([
            ("documents", Value::Number(self.documents as f64)),
            ("tokens", Value::Number(self.tokens as f64)),
            ("bytes", Value::Number(self.bytes as f64)),
            ("shards", Value::Array(self.shards.iter().map(ShardEntry::to_json).collect())),
        ])
    }

    /// One checksum over all shards.
    pub fn checksum(&self) -> u64 {
        checksum::combine(self.shards.iter().map(|shard| shard.checksum))
    }
}

impl ShardEntry {
    fn from_json(value: &Value) -> Result<Self> {
        let file = value.read("file", Value::as_str)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if file.starts_with('.') || file.is_empty() || !file.bytes().all(plain) {
            return Err(Error::new(format!("file {file:?} is not the plain name of a file in this folder")));
        }
        let checksum = value.read("checksum", |value| {
            let digits = value.as_str()?;
            let hex = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let sum = u64::from_str_radix(digits, 16).ok().filter(|_| hex);
            sum.ok_or_else(|| Error::new(format!("{digits:?} is not 16 hexadecimal digits")))
        })?;
        Ok(Self { file: file.into(), tokens: value.read("tokens", Value::as_u64)?, checksum })
    }

    fn to_json(&self) -> Value {
        Value::object([
            ("file", Value::String(self.file.clone())),
            ("tokens", Value::Number(self.tokens as f64)),
            ("checksum", Value::String(format!("{:016x}", self.checksum))),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate;

    fn example() -> Manifest {
        let shard = |i: u64| ShardEntry { file: format!("train-0000{i}.bin"), tokens: 10 + i, checksum: u64::MAX - i };
        Manifest {
            tokenizer: "bytes".into(),
            vocab: 258,
            train: Part { documents: 3, tokens: 21, bytes: 18, shards: vec![shard(0), shard(1)] },
            validation: Part::default(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = example();
        assert_eq!(Manifest::parse(manifest.to_json().as_bytes()).unwrap(), manifest);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), None);
        fs::write(folder.path().join(FILE), manifest.to_json()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), Some(manifest));
    }

    #[test]
    fn lies_are_found() {
        let text = example().to_json();
        for (from, to, message) in [
            ("train-00000.bin", "../x.bin", "file \"../x.bin\" is not the plain name of a file in this folder"),
            ("train-00000.bin", "", "file \"\" is not the plain name of a file in this folder"),
            ("\"tokens\": 21", "\"tokens\": 22", "tokens is 22, but the shards have 21 together"),
            ("fffffffffffffffe", "+ffffffffffffffe", "\"+ffffffffffffffe\" is not 16 hexadecimal digits"),
            ("\"version\": 1", "\"version\": 2", "version 2; this program reads version 1"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            let error = Manifest::parse(changed.as_bytes()).unwrap_err().to_string();
            assert!(error.ends_with(message), "{error}");
        }
    }

    #[test]
    fn damaged_manifests_never_panic() {
        let text = example().to_json();
        for case in 0..mutate::cases(10_000) {
            if let Err(error) = Manifest::parse(&mutate::damage(text.as_bytes(), case)) {
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
    }
}
