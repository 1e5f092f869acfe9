//! Writes tokens into shards.

use super::checksum::Running;
use super::manifest::{Part, ShardEntry, Split};
use super::shards::{self, HEADER};
use engine::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Writes one split's tokens to shards of at most `limit` tokens.
pub struct ShardWriter<'a> {
    folder: &'a Path,
    split: Split,
    limit: u32,
    open: Option<OpenShard>,
    part: Part,
}

struct OpenShard {
    path: PathBuf,
    file: BufWriter<File>,
    tokens: u32,
    checksum: Running,
}

impl<'a> ShardWriter<'a> {
    /// A writer of `train-00000.bin` and so on in `folder`.
    pub fn new(folder: &'a Path, split: Split, limit: u32) -> Self {
        Self { folder, split, limit: limit.max(1), open: None, part: Part::default() }
    }

    /// Appends tokens of a document, with the bytes of text behind them and whether they end it.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn push(&mut self, mut tokens: &[u16], bytes: u64, end: bool) -> Result<()> {
        self.part.documents += u64::from(end);
        self.part.bytes += bytes;
        while !tokens.is_empty() {
            let mut shard = match self.open.take() {
                Some(shard) => shard,
                None => OpenShard::create(self.folder.join(self.file_name()))?,
            };
            let (now, later) = tokens.split_at(tokens.len().min((self.limit - shard.tokens) as usize));
            shard.push(now)?;
            tokens = later;
            match shard.tokens == self.limit {
                true => self.close(shard)?,
                false => self.open = Some(shard),
            }
        }
        Ok(())
    }

    /// Closes the last shard.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn finish(mut self) -> Result<Part> {
        if let Some(shard) = self.open.take() {
            self.close(shard)?;
        }
        Ok(self.part)
    }

    fn file_name(&self) -> String {
        format!("{}-{:05}.bin", self.split.name(), self.part.shards.len())
    }

    fn close(&mut self, shard: OpenShard) -> Result<()> {
        let file = self.file_name();
        let tokens = u64::from(shard.tokens);
        let checksum = shard.finish()?;
        self.part.tokens += tokens;
        self.part.shards.push(ShardEntry { file, tokens, checksum });
        Ok(())
    }
}

impl OpenShard {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create_new(&path).map_err(|error| Error::io("create", &path, &error))?;
        let mut shard = Self { file: BufWriter::new(file), path, tokens: 0, checksum: Running::default() };
        shard.write(&shards::header(0))?;
        Ok(shard)
    }

    fn push(&mut self, tokens: &[u16]) -> Result<()> {
        self.tokens += tokens.len() as u32;
        let swapped: Vec<u16>;
        let little_endian = if cfg!(target_endian = "little") {
            tokens
        } else {
            swapped = tokens.iter().map(|token| token.to_le()).collect();
            &swapped
        };
        let bytes = bytemuck::cast_slice(little_endian);
        self.checksum.update(bytes);
        self.write(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, &error))
    }

    /// Puts the number of tokens into the header, waits for the disk, and tells the checksum.
    fn finish(mut self) -> Result<u64> {
        let header: [u8; HEADER] = shards::header(self.tokens);
        self.file
            .flush()
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(&header))
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(|error| Error::io("write", &self.path, &error))?;
        Ok(self.checksum.finish())
    }
}
