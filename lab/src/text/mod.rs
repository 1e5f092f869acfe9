//! From the files that people have to tokens.
//!
//! [`documents`] streams documents out of files in one of several [`formats`], [`encode`] runs a tokenizer over them in parallel,
//! [`prepare`](mod@prepare) writes the tokens into a folder of shards. [`open`] opens whatever `--data` names. Memory is
//! bounded: only a small text that is opened without being prepared is held in memory whole.

mod compressed;
mod csv;
pub mod documents;
pub mod encode;
pub mod formats;
mod gpt2;
pub mod prepare;
mod writer;

pub use formats::{Format, FormatWords};
pub use prepare::{PrepareOptions, Report, prepare};
pub use writer::OutputFolder;

use encode::{Encoded, encode_all};
use engine::{Error, Result};
use formats::TextSplit;
use gpt2::Gpt2;
use ltm::config::{Config, Tokenizer as Name};
use ltm::data::{Bytes, Dataset, Split, Tokenizer};
use ltm::run::{Material, Scorable};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Text of more bytes than this is not tokenised when it is opened: it has to be prepared.
pub const LARGEST_TEXT: u64 = 1 << 28;

/// The tokenizer of that name.
pub fn tokenizer(name: Name) -> Arc<dyn Tokenizer> {
    match name {
        Name::Bytes => Arc::new(Bytes),
        Name::Gpt2 => Arc::new(Gpt2::new()),
        Name::Gpt2Plain => Arc::new(Gpt2::plain()),
    }
}

/// The data that a resolved configuration names.
///
/// # Errors
/// As [`Material::open`].
pub fn material(config: &Config) -> Result<Material> {
    let tokenizer = tokenizer(config.data.tokenizer);
    Material::open(config, &|path, split| open(path, split, &tokenizer))
}

/// All sequences of the file or folder at `path`.
///
/// # Errors
/// As [`Material::open_whole`].
pub fn sequences(path: &Path, config: &Config) -> Result<Scorable> {
    let tokenizer = tokenizer(config.data.tokenizer);
    Material::open_whole(path, config, &|path, split| open(path, split, &tokenizer))
}

/// Opens a folder of shards or a single shard as [`Dataset::open`] does, or a text, which is tokenised in memory as one
/// document. A single file belongs to either split.
///
/// # Errors
/// Nothing there, nothing in it, damage, or tokens of another tokenizer.
pub fn open(path: &Path, split: Split, tokenizer: &Arc<dyn Tokenizer>) -> Result<Dataset> {
    let meta = fs::metadata(path).map_err(|error| Error::io("read", path, &error))?;
    if meta.is_dir() || path.extension().is_some_and(|extension| extension == "bin") {
        return Dataset::open(path, split, tokenizer);
    }
    if let Some((format, flag)) = named_format(path) {
        return Err(Error::usage(format!(
            "{0} is {format}, not plain text: `ltm data prepare {0} --format {format} {flag} --tokenizer {1} --out DIR`",
            path.display(),
            tokenizer.name()
        )));
    }
    if meta.len() > LARGEST_TEXT {
        return Err(Error::usage(format!(
            "{0} is too large to be tokenised in memory: `ltm data prepare {0} --tokenizer {1} --out DIR`",
            path.display(),
            tokenizer.name()
        )));
    }
    read_documents(&[path.into()], &Format::Text(TextSplit::File), tokenizer)
}

/// Tokenises the documents of `files` in memory.
///
/// # Errors
/// Files that cannot be read or are not in `format`; more text than [`LARGEST_TEXT`]; no text at all.
pub fn read_documents(files: &[PathBuf], format: &Format, tokenizer: &Arc<dyn Tokenizer>) -> Result<Dataset> {
    let name = files.first().cloned().unwrap_or_default();
    let pieces = documents::Pieces::of_files(files, format, &**tokenizer);
    let (mut tokens, mut bytes) = (Vec::new(), 0);
    let keep = |encoded: Encoded<'_>| {
        bytes += encoded.bytes;
        if bytes > LARGEST_TEXT {
            return Err(Error::usage(format!(
                "{}: more than {} MiB of text must be prepared first: `ltm data prepare`",
                name.display(),
                LARGEST_TEXT >> 20
            )));
        }
        tokens.extend_from_slice(encoded.tokens);
        Ok(())
    };
    encode_all(pieces, format, &**tokenizer, keep, &mut |_| {})?;
    if tokens.is_empty() {
        return Err(Error::new(format!("{} holds no text", name.display())));
    }
    Dataset::from_tokens(&name, tokens, tokenizer)
}

/// The format of documents that a file's name promises, if it is not plain text, and the flag that says where in it the
/// text is.
pub fn named_format(path: &Path) -> Option<(&str, &'static str)> {
    let packed = path.extension().is_some_and(|extension| extension == "gz" || extension == "zst");
    let name = if packed { Path::new(path.file_stem()?) } else { path };
    match name.extension()?.to_str()? {
        format @ "jsonl" => Some((format, "--field F")),
        format @ "csv" => Some((format, "--column C")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::config::Choice;

    #[test]
    fn names_lead_to_their_tokenizers() {
        for &(name, word) in Name::ALL {
            let tokenizer = tokenizer(name);
            assert_eq!((tokenizer.name(), tokenizer.vocab()), (word, name.vocab()));
            for id in [tokenizer.begin(), tokenizer.end()] {
                assert_eq!(tokenizer.token_bytes(id), Some(&[][..]));
            }
            assert!(tokenizer.token_bytes((tokenizer.vocab() - 1) as u16).is_some());
            assert!(tokenizer.token_bytes(tokenizer.vocab() as u16).is_none());
        }
    }

    #[test]
    fn a_text_is_one_document_and_records_are_not_text() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = tokenizer(Name::Bytes);
        let write = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            open(&path, Split::Train, &bytes)
        };
        for name in ["text.txt", "text"] {
            let data = write(name, b"a\nb").unwrap();
            let mut tokens = [0; 4];
            data.read(0, &mut tokens).unwrap();
            assert_eq!((tokens, data.len(), data.bytes()), ([97, 10, 98, 257], 4, 3));
        }
        let place = folder.path().display();
        for (name, text, message) in [
            ("empty.txt", "", format!("{place}/empty.txt holds no text")),
            (
                "x.jsonl",
                "{}",
                format!(
                    "{place}/x.jsonl is jsonl, not plain text: \
                     `ltm data prepare {place}/x.jsonl --format jsonl --field F --tokenizer bytes --out DIR`"
                ),
            ),
        ] {
            assert_eq!(write(name, text.as_bytes()).err().unwrap().to_string(), message);
        }
    }
}
