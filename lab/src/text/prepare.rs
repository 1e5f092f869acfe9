//! `ltm data prepare`: text to token shards, in parallel, in bounded memory.
//!
//! Documents are numbered as they are read. Each ends with the end token; empty ones are left out. Which documents are set
//! apart for validation depends on their numbers only, and the tokens on nothing but the text, so the same input gives the
//! same bytes on any number of threads. Nothing is at the output's place until everything is.

use super::documents::{Pieces, Position};
use super::encode::{Encoded, Progress, encode_all};
use super::formats::Format;
use super::writer::OutputFolder;
use engine::rng::Stream;
use engine::{Error, Result};
use ltm::data::manifest::{self, Manifest, Split};
use ltm::data::{ShardWriter, Tokenizer};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tokens per shard unless asked otherwise: 200 MB, as llm.c has it.
pub const SHARD_TOKENS: u32 = 100_000_000;

/// Separates the choice of validation documents from all other uses of randomness: "SPLT".
const SITE: u32 = 0x5350_4C54;

/// What to prepare, and how.
#[derive(Clone)]
pub struct PrepareOptions {
    /// Files, read in this order.
    pub inputs: Vec<PathBuf>,
    /// The folder to make; it must be empty or not exist.
    pub out: PathBuf,
    /// How documents lie in the files.
    pub format: Format,
    /// Makes the tokens.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The part of the documents set apart for validation, 0 for none.
    pub validation: f64,
    /// Most tokens per shard.
    pub shard_tokens: u32,
    /// Once somebody sets it, the work ends with an error.
    pub stop: Arc<AtomicBool>,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What `dataset.json` holds.
    pub manifest: Manifest,
    /// Documents without text, left out.
    pub empty_documents: u64,
    /// Bytes of input read.
    pub input_bytes: u64,
}

/// Bytes of all inputs together, for a progress bar.
///
/// # Errors
/// An input that is not there.
pub fn input_bytes(inputs: &[PathBuf]) -> Result<u64> {
    inputs.iter().try_fold(0, |sum, path| {
        let meta = std::fs::metadata(path).map_err(|error| Error::io("read", path, &error))?;
        Ok(sum + meta.len())
    })
}

/// Makes a folder of shards; calls `progress` every few megabytes.
///
/// # Errors
/// Inputs that cannot be read or are not in the format, an output that exists, a full disk, no text at all, or a split
/// without documents. The output's place is then untouched.
pub fn prepare(options: &PrepareOptions, progress: &mut dyn FnMut(Progress)) -> Result<Report> {
    let PrepareOptions { inputs, format, tokenizer, .. } = options;
    if inputs.is_empty() {
        return Err(Error::usage("name at least one input file"));
    }
    if !(0.0..1.0).contains(&options.validation) {
        return Err(Error::usage(format!("validation fraction {}: must be from 0 to below 1", options.validation)));
    }
    if options.shard_tokens == 0 {
        return Err(Error::usage("0 tokens per shard: must be at least 1"));
    }
    input_bytes(inputs)?;
    let folder = OutputFolder::create(&options.out)?;
    let writer = |split| ShardWriter::new(folder.path(), split, options.shard_tokens);
    let (mut train, mut validation) = (writer(Split::Train), writer(Split::Validation));
    let mut last = Progress::default();
    let sink = |encoded: Encoded<'_>| {
        if options.stop.load(Ordering::Relaxed) {
            return Err(Error::new("interrupted: nothing is left behind"));
        }
        let apart = for_validation(encoded.document, options.validation);
        let writer = if apart { &mut validation } else { &mut train };
        let end = encoded.position == Position::Last && !encoded.tokens.is_empty();
        writer.push(encoded.tokens, encoded.bytes, end)
    };
    let pieces = Pieces::of_files(inputs, format, &**tokenizer);
    let mut note = |now: Progress| {
        last = now;
        progress(now);
    };
    encode_all(pieces, format, &**tokenizer, sink, &mut note)?;

    let (train, validation) = (train.finish()?, validation.finish()?);
    let documents = train.documents + validation.documents;
    if documents == 0 {
        return Err(Error::new(format!("{}: no text in it", inputs[0].display())));
    }
    if train.documents == 0 || (validation.documents == 0 && options.validation > 0.0) {
        return Err(Error::usage(format!(
            "{documents} documents are too few to set {} of them apart for validation: split text further (--split), or leave it out",
            options.validation
        )));
    }
    let manifest = Manifest { tokenizer: tokenizer.name().into(), vocab: tokenizer.vocab(), train, validation };
    folder.write(manifest::FILE, manifest.to_json().as_bytes())?;
    folder.commit()?;
    Ok(Report { manifest, empty_documents: last.documents - documents, input_bytes: last.input_bytes })
}

/// Whether a document is set apart, each with probability `fraction` and always the same ones.
fn for_validation(document: u64, fraction: f64) -> bool {
    Stream::new(0, SITE).sample(document as u32).step((document >> 32) as u32).uniform(0) < fraction
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
