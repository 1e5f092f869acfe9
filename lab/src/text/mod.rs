//! From the files that people have to tokens.
//!
//! [`documents`] streams documents out of files in one of several [`Format`]s, [`encode`] runs a tokenizer over them in parallel,
//! [`prepare`](mod@prepare) writes the tokens into a folder of shards. [`open`] opens whatever `--data` names. Memory is
//! bounded: only a small text that is opened without being prepared is held in memory whole.

pub mod documents;
pub mod encode;
mod gpt2;
mod input;
pub mod prepare;

pub use documents::{Column, Format, TextSplit};
pub use prepare::{PrepareOptions, Prepared, input_bytes, new_folder, prepare};

use documents::{Piece, Pieces};
use encode::encode_all;
use engine::{Error, Result, file};
use gpt2::{BEGIN, END, Gpt2};
use ltm::config::{Config, Tokenizer as Name};
use ltm::data::{Bytes, DataFile, Dataset, Source, Split, Tokenizer};
use ltm::generate::{ROUNDS, Writer, Writing};
use ltm::hash;
use ltm::run::{Loaded, Material};
use ltm::shell;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

/// A text file with more bytes than this is not tokenised when it is opened: it has to be prepared.
pub const LARGEST_TEXT: u64 = 1 << 28;

/// The tokenizer of that name.
pub fn tokenizer(name: Name) -> Arc<dyn Tokenizer> {
    match name {
        Name::Bytes => Arc::new(Bytes),
        Name::Gpt2 => Arc::new(Gpt2::new(BEGIN)),
        Name::Gpt2Plain => Arc::new(Gpt2::new(END)),
    }
}

/// Plans the writing of so many texts with `model`.
///
/// # Errors
/// More texts than have noise of their own, and those of [`Writer::new`].
pub fn writer(model: &mut Loaded, writing: Writing, texts: u64) -> Result<Writer> {
    if texts >= ROUNDS.into() {
        return Err(Error::usage(format!("{texts} texts are too many: must be less than {ROUNDS}")));
    }
    let Loaded { config, params, store, .. } = model;
    Writer::new(config, params, store, tokenizer(config.data.tokenizer), writing)
}

/// The data that a resolved configuration names.
pub fn material(config: &Config) -> Result<Material> {
    let tokenizer = tokenizer(config.data.tokenizer);
    Material::open(config, &|path, split| open(path, split, &tokenizer))
}

/// All sequences of the file or folder at `path`, and their files.
pub fn sequences(path: &Path, config: &Config) -> Result<(Arc<dyn Source>, Vec<DataFile>)> {
    let tokenizer = tokenizer(config.data.tokenizer);
    Material::open_whole(path, config, &|path, split| open(path, split, &tokenizer))
}

/// Opens a folder of shards or a single shard as [`Dataset::open`] does, or a text, which is tokenised in memory as one
/// document, without a byte order mark. A single file belongs to either split.
///
/// # Errors
/// Nothing there, nothing in it, damage, or tokens of another tokenizer.
pub fn open(path: &Path, split: Split, tokenizer: &Arc<dyn Tokenizer>) -> Result<Dataset> {
    if path.is_dir() || path.extension().is_some_and(|extension| extension == "bin") {
        return Dataset::open(path, split, tokenizer);
    }
    let refused = match named_format(path) {
        Some((format, flag)) => Some((format!("{format}, not plain text"), format!(" --format {format} {flag}"))),
        None => (input_bytes(&[path.into()])? > LARGEST_TEXT)
            .then(|| ("too large to be tokenised in memory".into(), String::new())),
    };
    if let Some((what, flags)) = refused {
        return Err(Error::usage(format!(
            "{} is {what}: `ltm data prepare {}{flags} --tokenizer {} --out DIR`",
            path.display(),
            shell::path(path),
            tokenizer.name()
        )));
    }
    let raw = file::read(path)?;
    let file =
        DataFile { path: path.into(), bytes: raw.len() as u64, sha256: hash::sha256(&raw), tokens_checksum: None };
    let format = Format::Text(TextSplit::File);
    let pieces = Pieces::of_reader(path, Cursor::new(raw), &format, &**tokenizer)?;
    let mut tokens = Vec::new();
    let keep = |_: &Piece, some: &[u16], _| {
        tokens.extend_from_slice(some);
        Ok(())
    };
    encode_all(pieces, keep, &mut Err, &mut |_| Ok(()))?;
    if tokens.is_empty() {
        return Err(Error::new(format!("{} holds no text", path.display())));
    }
    Dataset::from_tokens(file, tokens, tokenizer)
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
    use std::fs;

    #[test]
    fn names_lead_to_their_tokenizers() {
        for &(name, _) in Name::ALL {
            let tokenizer = tokenizer(name);
            assert_eq!(tokenizer.name(), name);
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
            assert_eq!((tokens, data.len(), data.bytes), ([97, 10, 98, 257], 4, 3));
        }
        let place = folder.path().display();
        let refused = |name| write(name, b"").err().unwrap().to_string();
        assert_eq!(refused("empty.txt"), format!("{place}/empty.txt holds no text"));
        let way = format!("ltm data prepare {place}/x.jsonl --format jsonl --field F --tokenizer bytes --out DIR");
        assert_eq!(refused("x.jsonl"), format!("{place}/x.jsonl is jsonl, not plain text: `{way}`"));
    }
}
