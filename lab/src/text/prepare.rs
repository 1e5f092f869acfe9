//! Turns text into token shards, in parallel and in bounded memory, for `ltm data prepare`.
//!
//! Documents are numbered in reading order. Each ends with the end token; empty ones are skipped. The choice of
//! validation documents depends only on their numbers, and the tokens only on the text, so the same input gives the
//! same bytes on any number of threads. The output folder appears only when it is complete.

use super::documents::{Format, Piece, Pieces};
use super::encode::{Progress, encode_all};
use engine::rng::Stream;
use engine::{Error, Result, file};
use ltm::checkpoint::write_atomic;
use ltm::data::folder::{MANIFEST, Manifest, Split};
use ltm::data::{ShardWriter, Tokenizer};
use ltm::json;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most tokens per shard: 200 MB, as in llm.c.
pub const SHARD_TOKENS: u32 = 100_000_000;

/// Separates the choice of validation documents from all other uses of randomness: "SPLT".
const SITE: u32 = 0x5350_4C54;

/// Options of a preparation.
#[derive(Clone)]
pub struct PrepareOptions {
    /// Files, read in this order.
    pub inputs: Vec<PathBuf>,
    /// The folder to make; it must be empty or not exist.
    pub out: PathBuf,
    /// The format of documents in the files.
    pub format: Format,
    /// The tokenizer.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The fraction of documents held out for validation, from 0 to below 1.
    pub validation: f64,
    /// Most tokens per shard.
    pub shard_tokens: u32,
}

/// Bytes of all inputs together, for a progress bar.
///
/// # Errors
/// If an input does not exist or is not a regular file.
pub fn input_bytes(inputs: &[PathBuf]) -> Result<u64> {
    inputs.iter().try_fold(0, |sum, path| {
        let meta = file::open(path)?.metadata().map_err(|error| Error::io("read", path, &error))?;
        Ok(sum + meta.len())
    })
}

/// What was prepared, and what was skipped.
#[derive(Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The content of `dataset.json`.
    pub manifest: Manifest,
    /// Documents without text.
    pub without_text: u64,
    /// Files without a document.
    pub empty_files: u64,
}

/// Makes a folder of shards; calls `progress` every few megabytes, and its error stops the work. An unreadable document
/// goes to `bad`, see [`encode_all`].
///
/// # Errors
/// If inputs cannot be read or have another format, the output exists, the disk is full, there is no text, or a split
/// has no documents, and those of `bad` and `progress`. Then no output is written.
pub fn prepare(
    options: &PrepareOptions,
    bad: &mut dyn FnMut(Error) -> Result<()>,
    progress: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<Prepared> {
    let PrepareOptions { inputs, format, tokenizer, .. } = options;
    input_bytes(inputs)?;
    new_folder(&options.out, |folder| {
        let writer = |split| ShardWriter::new(folder, split, options.shard_tokens);
        let (mut train, mut validation) = (writer(Split::Train), writer(Split::Validation));
        let sink = |piece: &Piece, tokens: &[u16], bytes| {
            let apart = for_validation(piece.document, options.validation);
            let writer = if apart { &mut validation } else { &mut train };
            writer.push(tokens, bytes, piece.is_last && !tokens.is_empty())
        };
        let read = encode_all(Pieces::of_files(inputs, format, &**tokenizer), sink, bad, progress)?;
        let (train, validation) = (train.finish()?, validation.finish()?);
        let documents = train.documents + validation.documents;
        if documents == 0 {
            let names: Vec<_> = inputs.iter().map(|path| path.display().to_string()).collect();
            return Err(Error::new(format!("{}: no text found", names.join(", "))));
        }
        if train.documents == 0 || (validation.documents == 0 && options.validation > 0.0) {
            return Err(Error::usage(format!(
                "{documents} documents are too few to hold out a fraction of {} for validation: split the text \
                 further, or do not hold out any",
                options.validation
            )));
        }
        let manifest = Manifest::new(tokenizer.name(), train, validation);
        write_atomic(&folder.join(MANIFEST), json::pretty(&manifest).as_bytes())?;
        Ok(Prepared { manifest, without_text: read.documents - documents, empty_files: read.empty_files })
    })
}

/// Whether a document is held out: with probability `fraction`, and always the same ones.
fn for_validation(document: u64, fraction: f64) -> bool {
    Stream::new(0, SITE).sample(document as u32).step((document >> 32) as u32).uniform(0) < fraction
}

/// Makes a folder atomically: `fill` gets a folder with the suffix `.partial`, which is then renamed to `target`, or
/// removed on failure.
///
/// # Errors
/// If `target` exists and is not an empty folder, or another preparation uses or used it, and those of `fill`.
pub fn new_folder<T>(target: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    match fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => return Err(Error::usage(format!("{} is not empty: name a new folder", target.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("use", target, &error)),
    }
    let name = target.file_name().unwrap_or_default();
    let partial = target.with_file_name([name, ".partial".as_ref()].join("".as_ref()));
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, &error))?;
    fs::create_dir(&partial).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Error::new(format!(
            "{} exists: another preparation is running, or one was killed; if none is running, remove it",
            partial.display()
        )),
        _ => Error::io("create", &partial, &error),
    })?;
    let synced = |folder: &Path| if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) };
    let place = || synced(&partial).and_then(|()| fs::rename(&partial, target)).and_then(|()| synced(parent));
    let made = fill(&partial).and_then(|made| {
        place().map_err(|error| Error::io("create", target, &error))?;
        Ok(made)
    });
    // The next attempt reports a folder that remains.
    made.inspect_err(|_| _ = fs::remove_dir_all(&partial))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{TextSplit, open, tokenizer};
    use ltm::config::{Choice, Tokenizer as Name};
    use std::collections::BTreeMap;
    use tempfile::TempDir;

    fn options(folder: &TempDir, inputs: &[(&str, &str)], format: Format) -> PrepareOptions {
        let write = |&(name, text): &(&str, &str)| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        PrepareOptions {
            inputs: inputs.iter().map(write).collect(),
            out: folder.path().join("out"),
            format,
            tokenizer: tokenizer(Name::Bytes),
            validation: 0.0,
            shard_tokens: SHARD_TOKENS,
        }
    }

    fn jsonl() -> Format {
        Format::Jsonl { field: "t".into() }
    }

    fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name().into(), fs::read(entry.path()).unwrap_or_default())).collect()
    }

    fn failure(options: &PrepareOptions) -> String {
        let before = contents(options.out.parent().unwrap());
        let error = prepare(options, &mut Err, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(!error.contains('\n'), "one line: {error}");
        assert_eq!(contents(options.out.parent().unwrap()), before, "something was left behind");
        error
    }

    #[test]
    fn every_thread_count_writes_the_same_bytes() {
        let text: String =
            (0..3_000).map(|i| format!("{{\"t\": \"document {i}\\n{}\"}}\n", "words ".repeat(i % 50))).collect();
        let with = |threads| {
            let folder = tempfile::tempdir().unwrap();
            let mut options = options(&folder, &[("a", &text), ("b", &text)], jsonl());
            options.validation = 0.1;
            options.shard_tokens = 50_000;
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let made = pool.install(|| prepare(&options, &mut Err, &mut |_| Ok(()))).unwrap();
            (made, contents(&options.out))
        };
        let (made, files) = with(1);
        let parts = [&made.manifest.train, &made.manifest.validation];
        assert_eq!(parts.iter().map(|part| part.documents).sum::<u64>(), 6_000);
        assert!((450..750).contains(&parts[1].documents), "{}", parts[1].documents);
        assert!(parts[0].shards.len() > 10);
        assert!(parts.iter().all(|part| part.tokens == part.bytes + part.documents));
        assert_eq!(files.len(), 1 + parts[0].shards.len() + parts[1].shards.len());
        assert_eq!((made, files), with(3));
    }

    /// Opening a text gives the same tokens as preparing it, and they do not depend on the cuts into pieces.
    #[test]
    fn prepared_text_is_the_text_opened() {
        let folder = tempfile::tempdir().unwrap();
        let text = "The plot didn't thicken:\n\n  17 men\u{3000}  sat\t\tstill. 中文也是。\n".repeat(20_000);
        for &(name, word) in Name::ALL {
            let tokenizer = tokenizer(name);
            let mut options = options(&folder, &[("text.txt", &text)], Format::Text(TextSplit::File));
            options.out = folder.path().join(word);
            options.tokenizer = tokenizer.clone();
            let mut calls = Vec::new();
            let mut note = |now| {
                calls.push(now);
                Ok(())
            };
            let Prepared { manifest, without_text, .. } = prepare(&options, &mut Err, &mut note).unwrap();
            assert_eq!((without_text, manifest.train.bytes), (0, text.len() as u64));
            assert_eq!(calls.last().unwrap().tokens, manifest.train.tokens);
            let read = |path: &Path| {
                let data = open(path, Split::Train, &tokenizer).unwrap();
                let mut tokens = vec![0; data.len() as usize];
                data.read(0, &mut tokens).unwrap();
                assert_eq!(data.bytes, text.len() as u64);
                tokens.into_iter().map(|id| id as u16).collect::<Vec<_>>()
            };
            let tokens = read(&options.out);
            assert_eq!(tokens, read(&options.inputs[0]));
            let mut whole = Vec::new();
            tokenizer.encode(text.as_bytes(), &mut whole).unwrap();
            assert!(tokens == [whole, vec![tokenizer.end()]].concat(), "{word}");
        }
    }

    #[test]
    fn failures_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display().to_string();
        let good = "{\"t\": \"x\"}\n";
        let bad = options(&folder, &[("a", good), ("b", "{\"t\": \"x\"}\n{\"u\": 1}")], jsonl());
        assert_eq!(failure(&bad), format!("{place}/b:2: no field \"t\"; fields are: u"));
        let empty = options(&folder, &[("a", "{\"t\": \"\"}\n"), ("b", "")], jsonl());
        assert_eq!(failure(&empty), format!("{place}/a, {place}/b: no text found"));
        let mut missing = options(&folder, &[("a", good)], jsonl());
        missing.inputs.push(folder.path().join("missing"));
        assert!(failure(&missing).starts_with(&format!("cannot read {place}/missing: ")));
        let few = PrepareOptions { validation: 0.5, ..options(&folder, &[("a", good)], jsonl()) };
        assert!(failure(&few).starts_with("1 documents are too few to hold out a fraction of 0.5 for validation"));

        let interrupted =
            prepare(&options(&folder, &[("a", good)], jsonl()), &mut Err, &mut |_| Err(Error::new("interrupted")));
        assert_eq!(interrupted.unwrap_err().to_string(), "interrupted");
        assert_eq!(contents(folder.path()).len(), 2, "a and b");
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display().to_string();
        let options = options(&folder, &[("a", "text")], Format::Text(TextSplit::File));
        fs::create_dir(folder.path().join("out.partial")).unwrap();
        assert!(failure(&options).starts_with(&format!("{place}/out.partial exists: ")));
        fs::remove_dir(folder.path().join("out.partial")).unwrap();
        fs::create_dir(&options.out).unwrap();
        prepare(&options, &mut Err, &mut |_| Ok(())).expect("an empty folder may be used");
        let before = contents(&options.out);
        assert_eq!(failure(&options), format!("{place}/out is not empty: name a new folder"));
        assert_eq!(contents(&options.out), before);
        let file = PrepareOptions { out: folder.path().join("a"), ..options.clone() };
        assert!(failure(&file).starts_with(&format!("cannot use {place}/a: ")));
        let nested = PrepareOptions { out: folder.path().join("new/er/out"), ..options };
        prepare(&nested, &mut Err, &mut |_| Ok(())).unwrap();
        assert_eq!(contents(&nested.out), before);
    }
}
