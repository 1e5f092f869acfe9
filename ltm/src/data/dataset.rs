//! Tokens that a model learns from or is judged by: one long stream over the files of a folder, one file, or memory.
//!
//! Every token is looked at once when data is opened: ids beyond the vocabulary and, where `dataset.json` has checksums,
//! any damage are found then and not after days of learning. The pass runs in parallel at the speed of memory or disk.

use super::checksum::{self, CHUNK};
use super::folder::{foreign_shards, listed, splits};
use super::manifest::{self, Manifest, ShardEntry, Split};
use super::shards::Shard;
use super::tokenizer::Tokenizer;
use engine::{Error, Result};
use rayon::prelude::*;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A stream of tokens. Documents in it end with the tokenizer's end token.
#[derive(Clone)]
pub struct Dataset {
    tokenizer: Arc<dyn Tokenizer>,
    /// Bytes of text behind each id.
    lengths: Arc<[u32]>,
    shards: Arc<[Shard]>,
    /// Tokens in front of each shard, and in all.
    starts: Arc<[u64]>,
    /// The part of the stream that this is.
    range: Range<u64>,
    /// Bytes of text in that part.
    bytes: u64,
    checksum: u64,
}

impl Dataset {
    /// Opens a folder of shards (prepared ones with `dataset.json`, or `*.bin` of nanoGPT or llm.c) or a single shard, which
    /// belongs to either split.
    ///
    /// # Errors
    /// Nothing there, nothing in it, damage, or tokens of another tokenizer.
    pub fn open(path: &Path, split: Split, tokenizer: &Arc<dyn Tokenizer>) -> Result<Self> {
        let meta = fs::metadata(path).map_err(|error| Error::io("read", path, &error))?;
        if meta.is_dir() {
            return Self::open_folder(path, split, tokenizer);
        }
        Self::open_shards(&[path.into()], tokenizer)
    }

    /// Tokens that are in memory already; `name` stands for a file's name in messages.
    ///
    /// # Errors
    /// No token, or one beyond the vocabulary.
    pub fn from_tokens(name: impl AsRef<Path>, tokens: Vec<u16>, tokenizer: &Arc<dyn Tokenizer>) -> Result<Self> {
        let name = name.as_ref();
        if tokens.is_empty() {
            return Err(Error::new(format!("{} holds no token", name.display())));
        }
        Self::check(vec![Shard::in_memory(name, tokens)], None, tokenizer)
    }

    fn open_folder(folder: &Path, split: Split, tokenizer: &Arc<dyn Tokenizer>) -> Result<Self> {
        let files = match Manifest::read(folder)? {
            Some(manifest) => manifest.part(split).shards.iter().map(|shard| folder.join(&shard.file)).collect(),
            None => foreign_shards(folder, split)?,
        };
        if !files.is_empty() {
            return Self::open_shards(&files, tokenizer);
        }
        Err(match (split, splits(folder)?.is_empty()) {
            (_, true) => Error::new(format!(
                "{} holds no data: neither {} nor *.bin; `ltm data prepare` makes them from text",
                folder.display(),
                manifest::FILE
            )),
            (Split::Validation, false) => Error::new(format!(
                "{} has no validation shards: prepare with `--validation 0.01`, or name another file or folder",
                folder.display()
            )),
            (Split::Train, false) => Error::new(format!("{} has validation shards only", folder.display())),
        })
    }

    /// Opens shards, each compared with the manifest of its folder if it is in there.
    fn open_shards(files: &[PathBuf], tokenizer: &Arc<dyn Tokenizer>) -> Result<Self> {
        let folder = files[0].parent().unwrap_or(Path::new("")).to_path_buf();
        let manifest = Manifest::read(&folder)?;
        let opened = files.iter().map(|file| Shard::open(file)).collect::<Result<Vec<_>>>()?;
        Self::check(opened, manifest.as_ref(), tokenizer)
    }

    /// Looks at every token and puts the stream together.
    fn check(shards: Vec<Shard>, manifest: Option<&Manifest>, tokenizer: &Arc<dyn Tokenizer>) -> Result<Self> {
        let length = |id: usize| tokenizer.token_bytes(id as u16).map_or(0, |text| text.len() as u32);
        let lengths: Arc<[u32]> = (0..tokenizer.vocab()).map(length).collect();
        let (mut starts, mut sums, mut bytes) = (vec![0], Vec::new(), 0);
        for shard in &shards {
            let entry = manifest.and_then(|manifest| listed(manifest, shard.name()));
            if let Some(manifest) = manifest.filter(|_| entry.is_some()) {
                same_tokenizer(shard.name(), manifest, &**tokenizer)?;
            }
            let scan = Scan::of(shard.tokens(), &lengths);
            // Damage first: its most likely sign is a strange id, which would send the user after the wrong cause.
            if let Some(entry) = entry {
                scan.compare(shard, entry)?;
            }
            if let Some(at) = scan.beyond {
                return Err(beyond(shard, at, &**tokenizer));
            }
            starts.push(starts[starts.len() - 1] + shard.tokens().len() as u64);
            sums.push(scan.checksum);
            bytes += scan.bytes;
        }
        let range = 0..starts[starts.len() - 1];
        let checksum = checksum::combine(sums);
        Ok(Self {
            tokenizer: tokenizer.clone(),
            lengths,
            shards: shards.into(),
            starts: starts.into(),
            range,
            bytes,
            checksum,
        })
    }

    /// The first file, or what stands for it in messages.
    pub fn name(&self) -> &Path {
        self.shards[0].name()
    }

    /// The files, in order, or what stands for them in messages.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(Shard::name)
    }

    /// Number of tokens; never zero.
    #[expect(clippy::len_without_is_empty, reason = "no data set is empty")]
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Bytes of text behind the tokens.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of text behind `ids`.
    pub fn bytes_of(&self, ids: &[i32]) -> u64 {
        ids.iter().map(|&id| u64::from(self.lengths.get(id as usize).copied().unwrap_or(0))).sum()
    }

    /// The tokenizer whose ids these are.
    pub fn tokenizer(&self) -> &Arc<dyn Tokenizer> {
        &self.tokenizer
    }

    /// Checksum of all tokens of the opened files, to tell data sets apart; see [`checksum`].
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Which tokens of the opened files these are.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// File and token number of token `at`, for messages.
    pub(super) fn place(&self, at: u64) -> String {
        let at = self.range.start + at;
        let i = self.shard_of(at);
        format!("{}, token {}", self.shards[i].name().display(), at - self.starts[i])
    }

    /// The shard with token `at` of the whole stream.
    fn shard_of(&self, at: u64) -> usize {
        self.starts.partition_point(|&start| start <= at) - 1
    }

    /// Copies tokens `at..at + out.len()`.
    ///
    /// # Errors
    /// An id beyond the vocabulary: the file was changed after it was opened.
    ///
    /// # Panics
    /// If the range is not within `0..len()`.
    pub fn read(&self, at: u64, out: &mut [i32]) -> Result<()> {
        assert!(at + out.len() as u64 <= self.len(), "tokens {at}+{} of {}", out.len(), self.len());
        let (mut at, mut out) = (self.range.start + at, out);
        while !out.is_empty() {
            let i = self.shard_of(at);
            let from = (at - self.starts[i]) as usize;
            let tokens = &self.shards[i].tokens()[from..];
            let (now, later) = out.split_at_mut(out.len().min(tokens.len()));
            for (j, (out, token)) in now.iter_mut().zip(tokens).enumerate() {
                let id = u16::from_le(*token);
                if usize::from(id) >= self.lengths.len() {
                    return Err(beyond(&self.shards[i], from + j, &*self.tokenizer));
                }
                *out = i32::from(id);
            }
            at += now.len() as u64;
            out = later;
        }
        Ok(())
    }

    /// Where each document ends: one past its end token, in order. Tokens behind the last end token are a document too.
    pub fn document_ends(&self) -> Vec<u64> {
        let end = self.tokenizer.end().to_le();
        let mut ends: Vec<u64> = Vec::new();
        for (shard, &start) in self.shards.iter().zip(&*self.starts) {
            ends.par_extend(
                shard.tokens().par_iter().enumerate().filter(|&(_, &id)| id == end).map(|(i, _)| start + i as u64 + 1),
            );
        }
        ends.retain(|end| (self.range.start + 1..self.range.end).contains(end));
        ends.iter_mut().for_each(|end| *end -= self.range.start);
        ends.push(self.len());
        ends
    }

    /// Sets the last `fraction` of the tokens apart: what comes before, and the rest. The cut is at the first end of a
    /// document from there on, or, if that would leave nothing, in the middle of a document.
    ///
    /// # Errors
    /// If one of the two would be empty.
    pub fn hold_out(&self, fraction: f64) -> Result<(Self, Self)> {
        let wanted = ((1.0 - fraction) * self.len() as f64) as u64;
        let ends = self.document_ends();
        let cut = ends.into_iter().find(|&end| end >= wanted).filter(|&end| end < self.len()).unwrap_or(wanted);
        if cut == 0 || cut == self.len() {
            return Err(Error::usage(format!("{} tokens are too few to set {fraction} of them apart", self.len())));
        }
        Ok((self.part(0..cut), self.part(cut..self.len())))
    }

    fn part(&self, range: Range<u64>) -> Self {
        let range = self.range.start + range.start..self.range.start + range.end;
        let within = |(shard, &start): (&Shard, &u64)| {
            let local = |at: u64| (at.saturating_sub(start) as usize).min(shard.tokens().len());
            Scan::of(&shard.tokens()[local(range.start)..local(range.end)], &self.lengths).bytes
        };
        let bytes = self.shards.iter().zip(&*self.starts).map(within).sum();
        Self { range, bytes, ..self.clone() }
    }
}

/// What one look at every token tells.
struct Scan {
    checksum: u64,
    bytes: u64,
    /// The first token beyond the vocabulary.
    beyond: Option<usize>,
}

impl Scan {
    fn of(tokens: &[u16], lengths: &[u32]) -> Self {
        let chunk = |(i, tokens): (usize, &[u16])| {
            let bytes = tokens
                .iter()
                .try_fold(0, |sum, &id| Some(sum + u64::from(*lengths.get(usize::from(u16::from_le(id)))?)));
            let strange = |&id: &u16| usize::from(u16::from_le(id)) >= lengths.len();
            let beyond = || tokens.iter().position(strange).map(|at| i * (CHUNK / 2) + at);
            (checksum::chunk_sum(bytemuck::cast_slice(tokens)), bytes.unwrap_or(0), bytes.map_or_else(beyond, |_| None))
        };
        let chunks: Vec<_> = tokens.par_chunks(CHUNK / 2).enumerate().map(chunk).collect();
        Self {
            checksum: checksum::combine(chunks.iter().map(|chunk| chunk.0)),
            bytes: chunks.iter().map(|chunk| chunk.1).sum(),
            beyond: chunks.iter().find_map(|chunk| chunk.2),
        }
    }

    fn compare(&self, shard: &Shard, entry: &ShardEntry) -> Result<()> {
        let (name, tokens) = (shard.name().display(), shard.tokens().len() as u64);
        if tokens != entry.tokens {
            return Err(Error::new(format!("{name} has {tokens} tokens, {} says {}", manifest::FILE, entry.tokens)));
        }
        match self.checksum == entry.checksum {
            true => Ok(()),
            false => Err(Error::new(format!(
                "{name} is damaged: its checksum is {:016x}, {} says {:016x}; prepare the data again",
                self.checksum,
                manifest::FILE,
                entry.checksum
            ))),
        }
    }
}

fn same_tokenizer(file: &Path, manifest: &Manifest, tokenizer: &dyn Tokenizer) -> Result<()> {
    match manifest.tokenizer == tokenizer.name() && manifest.vocab == tokenizer.vocab() {
        true => Ok(()),
        false => Err(Error::new(format!(
            "{} was prepared with tokenizer {} ({} ids), the model has {} ({} ids)",
            file.display(),
            manifest.tokenizer,
            manifest.vocab,
            tokenizer.name(),
            tokenizer.vocab()
        ))),
    }
}

fn beyond(shard: &Shard, at: usize, tokenizer: &dyn Tokenizer) -> Error {
    Error::new(format!(
        "{}: token {at} has id {}, but tokenizer {} has {} ids: made with another tokenizer, or damaged",
        shard.name().display(),
        u16::from_le(shard.tokens()[at]),
        tokenizer.name(),
        tokenizer.vocab()
    ))
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
