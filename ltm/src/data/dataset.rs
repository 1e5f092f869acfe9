//! The tokens for training or evaluation: one long stream over the files of a folder, one file, or memory.
//!
//! Opening data checks every token once, so that ids beyond the vocabulary and (if `dataset.json` has hashes) damage
//! show then and not after days of training.

use super::checksum::{checksum, combine};
use super::folder::{MANIFEST, Manifest, Split, shards};
use super::shards::{DataFile, Shard, Tokens};
use super::tokenizer::Tokenizer;
use engine::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// nanoGPT's file with the encoding of tokens that are not GPT-2's.
const ENCODING: &str = "meta.pkl";

/// A stream of tokens. Documents in it end with the tokenizer's end token.
#[derive(Clone)]
pub struct Dataset {
    /// The tokenizer whose ids these are.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Bytes of text of each id.
    lengths: Arc<[u32]>,
    /// The files, each with the number of tokens before it.
    shards: Arc<[(u64, Shard)]>,
    /// The range of these tokens in the opened files.
    pub range: Range<u64>,
    /// Bytes of text of these tokens.
    pub bytes: u64,
}

/// A range of a file's tokens.
pub struct Stretch<'a> {
    /// The file.
    pub file: &'a DataFile,
    range: Range<u64>,
}

impl Stretch<'_> {
    /// The first of `others` with some of these tokens: in the same file or in a copy, whatever its name, header and
    /// compression. The two parts of a split file share nothing.
    pub fn shared_with<'a>(&self, others: &'a [Stretch<'a>]) -> Option<&'a DataFile> {
        let overlaps = |b: &Range<u64>| self.range.start.max(b.start) < self.range.end.min(b.end);
        others.iter().find(|other| overlaps(&other.range) && self.file.is_copy_of(other.file)).map(|other| other.file)
    }
}

impl Dataset {
    /// Opens a folder of shards (prepared ones with `dataset.json`, or `*.bin` of nanoGPT or llm.c) or a single shard, which
    /// belongs to either split.
    ///
    /// # Errors
    /// If the path does not exist, is empty or damaged, or has tokens of another tokenizer or of an encoding beside
    /// them.
    pub fn open(path: &Path, split: Split, tokenizer: &Arc<dyn Tokenizer>) -> Result<Self> {
        let is_folder = path.is_dir();
        let folder = if is_folder { path } else { path.parent().unwrap_or(Path::new("")) };
        let files = if is_folder { shards(folder, split)? } else { vec![path.into()] };
        if files.is_empty() {
            return Err(Error::new(format!(
                "{} holds no {} shards, neither by {MANIFEST} nor as *.bin: `ltm data prepare` makes them from text, validation \
                 shards with `--validation 0.01`",
                folder.display(),
                split.name()
            )));
        }
        let manifest = Manifest::read(folder)?;
        let encoding = folder.join(ENCODING);
        if manifest.is_none() && encoding.exists() {
            return Err(Error::new(format!(
                "{}: these tokens have an encoding of their own, which this program does not know: prepare the text by \
                 `ltm data prepare`",
                encoding.display()
            )));
        }
        let opened: Vec<_> = files.par_iter().map(|file| Shard::open(file)).collect();
        let opened = opened.into_iter().collect::<Result<Vec<_>>>()?;
        if let Some(manifest) = manifest {
            opened.iter().try_for_each(|shard| compare(shard, &manifest, &**tokenizer))?;
        }
        Self::of(opened, tokenizer)
    }

    /// Tokens made from the text of `file`; there must be at least one.
    ///
    /// # Errors
    /// A token beyond the vocabulary.
    pub fn from_tokens(file: DataFile, tokens: Vec<u16>, tokenizer: &Arc<dyn Tokenizer>) -> Result<Self> {
        Self::of(vec![Shard { file, tokens: Tokens::Memory(tokens) }], tokenizer)
    }

    /// Checks every token and builds the stream.
    fn of(shards: Vec<Shard>, tokenizer: &Arc<dyn Tokenizer>) -> Result<Self> {
        let length = |id: usize| tokenizer.token_bytes(id as u16).map_or(0, |text| text.len() as u32);
        let lengths: Arc<[u32]> = (0..tokenizer.vocab()).map(length).collect();
        let (mut placed, mut end, mut bytes) = (Vec::new(), 0, 0);
        for mut shard in shards {
            let found = shard.look(0..shard.len(), |at, tokens| {
                let mut bytes = 0;
                for (&id, i) in tokens.iter().zip(at..) {
                    let Some(&length) = lengths.get(usize::from(id)) else {
                        return Err(Error::new(format!(
                            "{}: token {i} has id {id}, but tokenizer {} has {} ids: the file was made with another \
                             tokenizer, or is damaged",
                            shard.file.path.display(),
                            tokenizer.name(),
                            tokenizer.vocab()
                        )));
                    };
                    bytes += u64::from(length);
                }
                Ok((bytes, checksum(bytemuck::cast_slice(tokens))))
            })?;
            bytes += found.iter().map(|piece| piece.0).sum::<u64>();
            shard.file.tokens_checksum = Some(format!("{:016x}", combine(found.iter().map(|piece| piece.1))));
            let start = end;
            end += shard.len();
            placed.push((start, shard));
        }
        Ok(Self { tokenizer: tokenizer.clone(), lengths, shards: placed.into(), range: 0..end, bytes })
    }

    /// What each file has of tokens `range` of the opened files: the number of tokens before the file, the file, and the
    /// range within it, which may be empty.
    fn parts(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Shard, Range<u64>)> {
        self.shards.iter().map(move |&(start, ref shard)| {
            let local = |at: u64| at.saturating_sub(start).min(shard.len());
            (start, shard, local(range.start)..local(range.end))
        })
    }

    /// Bytes of text of tokens `range` of the opened files.
    fn bytes_in(&self, range: Range<u64>) -> Result<u64> {
        let mut bytes = 0;
        for (_, shard, part) in self.parts(range) {
            let length = |&id: &u16| u64::from(self.lengths.get(usize::from(id)).copied().unwrap_or(0));
            let sum = |_, tokens: &[u16]| Ok(tokens.iter().map(length).sum::<u64>());
            bytes += shard.look(part, sum)?.iter().sum::<u64>();
        }
        Ok(bytes)
    }

    /// The files, in order.
    pub fn files(&self) -> impl Iterator<Item = &DataFile> {
        self.shards.iter().map(|(_, shard)| &shard.file)
    }

    /// The text of this stream, file by file.
    pub fn stretches(&self) -> impl Iterator<Item = Stretch<'_>> {
        self.parts(self.range.clone()).map(|(_, shard, range)| Stretch { file: &shard.file, range })
    }

    /// Number of tokens; never zero.
    #[expect(clippy::len_without_is_empty, reason = "no data set is empty")]
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Bytes of text of `ids`.
    pub fn bytes_of(&self, ids: &[i32]) -> u64 {
        ids.iter().map(|&id| u64::from(self.lengths.get(id as usize).copied().unwrap_or(0))).sum()
    }

    /// Copies tokens `at..at + out.len()`.
    ///
    /// # Errors
    /// A file that cannot be read, or has changed since it was opened.
    ///
    /// # Panics
    /// If the range is not within `0..len()`.
    pub fn read(&self, at: u64, mut out: &mut [i32]) -> Result<()> {
        assert!(at + out.len() as u64 <= self.len(), "tokens {at}+{} of {}", out.len(), self.len());
        let mut at = self.range.start + at;
        while !out.is_empty() {
            let (start, shard) = &self.shards[self.shards.partition_point(|(start, _)| *start <= at) - 1];
            let (now, later) = out.split_at_mut((start + shard.len() - at).min(out.len() as u64) as usize);
            let mut tokens = vec![0; now.len()];
            shard.read(at - start, &mut tokens)?;
            if tokens.iter().any(|&id| usize::from(id) >= self.lengths.len()) {
                let path = shard.file.path.display();
                return Err(Error::new(format!("{path} has changed since it was opened: restore the old file")));
            }
            now.iter_mut().zip(tokens).for_each(|(out, id)| *out = i32::from(id));
            at += now.len() as u64;
            out = later;
        }
        Ok(())
    }

    /// The end of each document: one past its end token, in order. Tokens after the last end token are also a document.
    ///
    /// # Errors
    /// A file that cannot be read, or has another size than before.
    pub fn document_ends(&self) -> Result<Vec<u64>> {
        let end = self.tokenizer.end();
        let mut ends: Vec<u64> = Vec::new();
        for (start, shard, part) in self.parts(self.range.clone()) {
            let found = shard.look(part, |at, tokens| {
                let ends = tokens.iter().zip(start + at + 1 - self.range.start..).filter(|&(&id, _)| id == end);
                Ok(ends.map(|(_, end)| end).collect::<Vec<_>>())
            })?;
            ends.extend(found.into_iter().flatten());
        }
        if ends.last() != Some(&self.len()) {
            ends.push(self.len());
        }
        Ok(ends)
    }

    /// Splits off the last `fraction` of the tokens; returns the first part and the rest. The cut is at the next end of
    /// a document, or within a document if the rest would be empty.
    ///
    /// # Errors
    /// If one of the two would be empty, and those of [`document_ends`](Self::document_ends).
    pub fn set_apart(&self, fraction: f64) -> Result<(Self, Self)> {
        let wanted = ((1.0 - fraction) * self.len() as f64) as u64;
        let at = wanted.saturating_sub(1);
        let tail = Self { range: self.range.start + at..self.range.end, ..self.clone() };
        let end = at + tail.document_ends()?[0];
        let cut = if end < self.len() { end } else { wanted };
        if cut == 0 || cut == self.len() {
            return Err(Error::usage(format!(
                "{} tokens are too few to hold out a fraction of {fraction}",
                self.len()
            )));
        }
        let (start, cut, end) = (self.range.start, self.range.start + cut, self.range.end);
        // For the rest, which is usually the shorter part.
        let bytes = self.bytes_in(cut..end)?;
        let part = |range, bytes| Self { range, bytes, ..self.clone() };
        Ok((part(start..cut, self.bytes.saturating_sub(bytes)), part(cut..end, bytes)))
    }
}

/// Compares a shard with the manifest of its folder, if it is listed there.
fn compare(shard: &Shard, manifest: &Manifest, tokenizer: &dyn Tokenizer) -> Result<()> {
    let Some(entry) = manifest.entry(&shard.file.path) else { return Ok(()) };
    let (made_with, found) = (manifest.tokenizer, &shard.file.sha256);
    let wrong = if made_with != tokenizer.name() {
        format!("was prepared with tokenizer {made_with}, but the model has {}", tokenizer.name())
    } else if *found != entry.sha256 {
        format!("is damaged: its checksum is {found}, but {MANIFEST} has {}; prepare the data again", entry.sha256)
    } else {
        return Ok(());
    };
    Err(Error::new(format!("{} {wrong}", shard.file.path.display())))
}

#[cfg(test)]
mod tests;
