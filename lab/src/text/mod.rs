//! Turns text files into tokens.
//!
//! [`documents`] streams documents out of files in one of several [`Format`]s, [`encode`] runs a tokenizer over them in
//! parallel, [`prepare`](mod@prepare) writes the tokens into a folder of shards. [`open`] opens any data that the user
//! names. Memory is bounded: only a small text that was not prepared is kept in memory.

pub mod documents;
pub mod encode;
mod gpt2;
mod input;
pub mod prepare;

pub use documents::{Column, Format, TextSplit};
pub use prepare::{PrepareOptions, Prepared, input_bytes, new_folder, prepare};

use documents::{LONGEST_RECORD, Piece, Pieces};
use encode::encode_all;
use engine::{Error, Result, file};
use gpt2::{BEGIN, END, Gpt2};
use ltm::config::{Config, Tokenizer as Name};
use ltm::data::folder::is_shard;
use ltm::data::{Bytes, DataFile, Dataset, Source, Split, Tokenizer};
use ltm::generate::{ROUNDS, Writer, Writing};
use ltm::hash;
use ltm::json;
use ltm::run::{Loaded, Material};
use ltm::shell;
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

/// A text of more bytes than this, compressed or not, is not tokenised on opening: it must be prepared.
pub const LARGEST_TEXT: u64 = 1 << 28;

/// The tokenizer of that name.
pub fn tokenizer(name: Name) -> Arc<dyn Tokenizer> {
    match name {
        Name::Bytes => Arc::new(Bytes),
        Name::Gpt2 => Arc::new(Gpt2::new(BEGIN)),
        Name::Gpt2Plain => Arc::new(Gpt2::new(END)),
    }
}

/// Plans the generation of this many texts with `model`.
///
/// # Errors
/// If there are more texts than noise streams, and those of [`Writer::new`].
pub fn writer(model: &mut Loaded, writing: Writing, texts: u64) -> Result<Writer> {
    if texts >= ROUNDS.into() {
        return Err(Error::usage(format!("{texts} texts are too many: must be less than {ROUNDS}")));
    }
    let Loaded { config, params, store, lengths, .. } = model;
    Writer::new(config, params, store, tokenizer(config.data.tokenizer), lengths.as_ref(), writing)
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
/// If the path does not exist, is empty or damaged, or has tokens of another tokenizer.
pub fn open(path: &Path, split: Split, tokenizer: &Arc<dyn Tokenizer>) -> Result<Dataset> {
    if path.is_dir() || is_shard(path) {
        return Dataset::open(path, split, tokenizer);
    }
    open_text(path, tokenizer, LARGEST_TEXT)
}

/// Opens a text of at most this many bytes, compressed and uncompressed.
fn open_text(path: &Path, tokenizer: &Arc<dyn Tokenizer>, most: u64) -> Result<Dataset> {
    let refused = |what: &str, flags: &str| {
        Error::usage(format!(
            "{} is {what}: `ltm data prepare {}{flags} --tokenizer {} --out DIR`",
            path.display(),
            shell::path(path),
            tokenizer.name()
        ))
    };
    if let Some((format, flag)) = named_format(path)? {
        return Err(refused(&format!("{format}, not plain text"), &format!(" --format {format} {flag}")));
    }
    let too_large = || refused("too large to be tokenised in memory", "");
    if input_bytes(&[path.into()])? > most {
        return Err(too_large());
    }
    let raw = file::read(path)?;
    let file =
        DataFile { path: path.into(), bytes: raw.len() as u64, sha256: hash::sha256(&raw), tokens_checksum: None };
    let format = Format::Text(TextSplit::File);
    let pieces = Pieces::of_reader(path, Cursor::new(raw), &format, &**tokenizer)?;
    let (mut tokens, mut unpacked) = (Vec::new(), 0);
    let keep = |piece: &Piece, some: &[u16], _| {
        unpacked += piece.bytes.len() as u64;
        tokens.extend_from_slice(some);
        if unpacked > most { Err(too_large()) } else { Ok(()) }
    };
    encode_all(pieces, keep, &mut Err, &mut |_| Ok(()))?;
    if tokens.is_empty() {
        return Err(Error::new(format!("{} has no text", path.display())));
    }
    Dataset::from_tokens(file, tokens, tokenizer)
}

/// The format of a file that is not plain text, by its name, and the flag that names the place of the text in it. A
/// file named `.json` is jsonl if its first line is an object.
///
/// # Errors
/// If a file named `.json` cannot be read, or is JSON that is not jsonl.
pub fn named_format(path: &Path) -> Result<Option<(&'static str, &'static str)>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = [".gz", ".zst"].iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(&name);
    Ok(match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("jsonl" | "ndjson") => Some(("jsonl", "--field F")),
        Some("json") if is_jsonl(path)? => Some(("jsonl", "--field F")),
        Some("csv") => Some(("csv", "--column C")),
        _ => None,
    })
}

/// Whether the first line of the file at `path` that is not blank is an object of JSON.
fn is_jsonl(path: &Path) -> Result<bool> {
    let mut text = BufReader::new(input::plain(path, Box::new(file::open(path)?))?.take(LONGEST_RECORD));
    let mut line = Vec::new();
    let mut read = || Ok(text.read_until(b'\n', &mut line)? > 0 && line.trim_ascii().is_empty());
    while read().map_err(|error| Error::io("read", path, &error))? {}
    let lines = match line.trim_ascii().first() {
        Some(b'[') => "jq -c '.[]'",
        Some(b'{') if json::from_bytes::<Map<String, Value>>(&line).is_ok() => return Ok(true),
        Some(b'{') => "jq -c .",
        _ => return Ok(false),
    };
    let path = path.display();
    Err(Error::usage(format!(
        "{path} looks like JSON, but not one object per line: `{lines}` makes lines of it, or rename it if it is plain text"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::config::Choice;
    use std::fs;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

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
        let refused = |name, text: &[u8]| write(name, text).err().unwrap().to_string();
        assert_eq!(refused("empty.txt", b""), format!("{place}/empty.txt has no text"));
        let object = b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
        for (name, text, format) in [
            ("x.jsonl", &b""[..], "jsonl --field F"),
            ("X.JSONL", b"", "jsonl --field F"),
            ("x.ndjson", b"", "jsonl --field F"),
            ("c4.json", object, "jsonl --field F"),
            ("blank.json", b"\n {\"text\": \"a\"}\n", "jsonl --field F"),
            ("c4.json.gz", &gzip(object), "jsonl --field F"),
            ("x.Csv.Zst", b"", "csv --column C"),
        ] {
            let way = format!("ltm data prepare {place}/{name} --format {format} --tokenizer bytes --out DIR");
            let is = &format[..format.find(' ').unwrap()];
            assert_eq!(refused(name, text), format!("{place}/{name} is {is}, not plain text: `{way}`"));
        }
        for (text, lines) in [
            (&b"{\n  \"text\": \"a\"\n}\n"[..], "jq -c ."),
            (b"{}{}\n", "jq -c ."),
            (b"[{\"text\": \"a\"}]", "jq -c '.[]'"),
            (b"\n [\n1, 2]\n", "jq -c '.[]'"),
        ] {
            let said =
                format!("{place}/x.json looks like JSON, but not one object per line: `{lines}` makes lines of it, or");
            assert!(refused("x.json", text).starts_with(&said), "{text:?}");
        }
        for text in [&b"say \"no\""[..], b"\"{\"\n"] {
            assert_eq!(write("x.json", text).unwrap().bytes, text.len() as u64);
        }
        assert_eq!(
            refused("x.BIN", b"odd"),
            format!("{place}/x.BIN: 3 bytes is an odd number: truncated, or not a shard of 16-bit tokens")
        );
    }

    #[test]
    fn what_is_too_large_unpacked_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let text = [b'a'; 1000];
        for (packed, limit, is_held) in [
            (text.to_vec(), 1000, true),
            (text.to_vec(), 999, false),
            (gzip(&text), 1000, true),
            (gzip(&text), 999, false),
            (zstd::encode_all(&text[..], 1).unwrap(), 999, false),
        ] {
            fs::write(&path, packed).unwrap();
            let opened = open_text(&path, &tokenizer(Name::Bytes), limit).map_err(|error| error.to_string());
            let said = format!("{} is too large to be tokenised in memory: `ltm data prepare ", path.display());
            assert!(opened.as_ref().map_or_else(|error| !is_held && error.starts_with(&said), |_| is_held));
        }
    }
}
