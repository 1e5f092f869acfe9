//! Files of 16-bit token ids: read as memory, written one after the other.
//!
//! Two layouts, told apart by the first four bytes:
//! - ours and llm.c's: 256 little-endian 32-bit words (20240520, version 1, number of tokens, zeros), then the tokens;
//! - nanoGPT's: nothing but tokens. A nanoGPT file cannot be mistaken for the other: read as tokens, the magic number is
//!   55432 and 308, and 55432 is beyond GPT-2's vocabulary.

use super::folder::{Part, ShardEntry, Split};
use crate::hash;
use engine::map::{self, Mmap};
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

const _: () = assert!(cfg!(target_endian = "little"), "token files are little-endian, and so must this machine be");

/// First word of a shard with a header.
const MAGIC: u32 = 20_240_520;
/// Second word.
const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER: usize = 1024;

/// The header of a shard of `tokens` tokens.
pub fn header(tokens: u32) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    for (i, word) in [MAGIC, VERSION, tokens].into_iter().enumerate() {
        bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Where the tokens of a shard begin: the length of its header, which is zero in nanoGPT's layout. Looks at the header and
/// the file's length only.
///
/// # Errors
/// A length or header that contradicts itself; the message lacks the file's name.
pub fn payload_start(file: &[u8]) -> Result<usize> {
    let word = |i: usize| file.get(4 * i..4 * i + 4).map_or(0, |word| u32::from_le_bytes(word.try_into().expect("4")));
    let (version, tokens, found) = (word(1), word(2), file.len());
    let start = if word(0) == MAGIC { HEADER } else { 0 };
    let bytes = HEADER as u64 + 2 * u64::from(tokens);
    let wrong = if found == start {
        "there is no token in it".into()
    } else if start == 0 && found % 2 == 1 {
        format!("{found} bytes is an odd number: truncated, or not a shard of 16-bit tokens")
    } else if start > 0 && version != VERSION {
        format!("shard version {version}; this program reads version {VERSION}")
    } else if start > 0 && found as u64 != bytes {
        format!("the header announces {tokens} tokens, {bytes} bytes in all, but the file has {found}")
    } else {
        return Ok(start);
    };
    Err(Error::new(wrong))
}

/// A file of data, as a run records it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// The [checksum](super::checksum) of its tokens, by which a text is known however it was packed; runs made before had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_checksum: Option<u64>,
}

impl DataFile {
    /// The file at `path`, whose tokens are not known.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let sha256 = hash::sha256_files(&[path])?;
        let meta = fs::metadata(path).map_err(|error| Error::io("read", path, &error))?;
        Ok(Self { path: path.into(), bytes: meta.len(), sha256, tokens_checksum: None })
    }

    /// Whether both hold the same, as files or as tokens.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        let tokens = self.tokens_checksum.is_some() && self.tokens_checksum == other.tokens_checksum;
        tokens || self.sha256 == other.sha256
    }
}

/// The tokens of one file.
#[derive(Debug)]
pub struct Shard {
    /// The file.
    pub file: DataFile,
    pub(super) tokens: Tokens,
}

#[derive(Debug)]
pub(super) enum Tokens {
    Mapped { map: Mmap, start: usize },
    Memory(Vec<u16>),
}

impl Shard {
    /// Maps the file at `path`, checks its header and hashes it.
    ///
    /// # Errors
    /// A file that cannot be read or is not a shard.
    pub fn open(path: &Path) -> Result<Self> {
        let map = map::open(path)?;
        let start = payload_start(&map).map_err(|error| error.at(path.display()))?;
        let sha256 = hash::sha256(&*map);
        let file = DataFile { path: path.into(), bytes: map.len() as u64, sha256, tokens_checksum: None };
        Ok(Self { file, tokens: Tokens::Mapped { map, start } })
    }

    /// All tokens.
    pub fn tokens(&self) -> &[u16] {
        match &self.tokens {
            // The map begins on a page and the header has an even length, so this cast finds the tokens aligned.
            Tokens::Mapped { map, start } => bytemuck::cast_slice(&map[*start..]),
            Tokens::Memory(tokens) => tokens,
        }
    }
}

/// Writes one split's tokens into shards.
pub struct ShardWriter<'a> {
    folder: &'a Path,
    split: Split,
    /// Most tokens of a shard.
    limit: u32,
    /// The shard that is not full, and its number of tokens.
    open: Option<(BufWriter<File>, u32)>,
    part: Part,
}

impl<'a> ShardWriter<'a> {
    /// A writer of `train-00000.bin` and so on in `folder`, each with at most `limit` tokens.
    pub fn new(folder: &'a Path, split: Split, limit: u32) -> Self {
        Self { folder, split, limit, open: None, part: Part::default() }
    }

    /// Appends tokens of a document, with the bytes of their text and whether they end it.
    pub fn push(&mut self, mut tokens: &[u16], bytes: u64, end: bool) -> Result<()> {
        self.part.documents += u64::from(end);
        self.part.bytes += bytes;
        self.part.tokens += tokens.len() as u64;
        while !tokens.is_empty() {
            let path = self.path();
            let fail = |error: std::io::Error| Error::io("write", &path, &error);
            let (file, count) = match &mut self.open {
                Some(open) => open,
                None => {
                    let mut file = BufWriter::new(File::create_new(&path).map_err(fail)?);
                    file.write_all(&header(0)).map_err(fail)?;
                    self.open.insert((file, 0))
                }
            };
            let (now, later) = tokens.split_at(tokens.len().min((self.limit - *count) as usize));
            file.write_all(bytemuck::cast_slice(now)).map_err(fail)?;
            *count += now.len() as u32;
            tokens = later;
            if *count == self.limit {
                self.close()?;
            }
        }
        Ok(())
    }

    /// Closes the last shard.
    pub fn finish(mut self) -> Result<Part> {
        self.close()?;
        Ok(self.part)
    }

    /// The shard that is being written.
    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}-{:05}.bin", self.split.name(), self.part.shards.len()))
    }

    /// Puts the number of tokens into the header, waits for the disk, and hashes the file.
    fn close(&mut self) -> Result<()> {
        let Some((mut file, tokens)) = self.open.take() else { return Ok(()) };
        let path = self.path();
        file.rewind()
            .and_then(|()| file.write_all(&header(tokens)))
            .and_then(|()| file.flush())
            .and_then(|()| file.get_ref().sync_all())
            .map_err(|error| Error::io("write", &path, &error))?;
        let sha256 = hash::sha256_files(&[&path])?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.part.shards.push(ShardEntry { file, tokens: tokens.into(), sha256 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: &[u8]) -> Result<Vec<u16>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let shard = Shard::open(file.path())?;
        assert_eq!((shard.file.bytes, shard.file.sha256.len()), (bytes.len() as u64, 64));
        Ok(shard.tokens().to_vec())
    }

    #[test]
    fn both_layouts_are_read_and_damage_gets_one_clear_line() {
        let tokens: Vec<u16> = (0..1000).chain([50256, 65535]).collect();
        let raw: &[u8] = bytemuck::cast_slice(&tokens);
        let good = [&header(1002), raw].concat();
        assert_eq!(open(&good).unwrap(), tokens);
        assert_eq!(open(raw).unwrap(), tokens);
        let with_word = |i: usize, word: u32| {
            let mut bytes = good.clone();
            bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
            bytes
        };
        for (bytes, message) in [
            (vec![], "there is no token in it"),
            (header(0).to_vec(), "there is no token in it"),
            (good[..700].to_vec(), "the header announces 1002 tokens, 3028 bytes in all, but the file has 700"),
            (
                with_word(2, u32::MAX),
                "the header announces 4294967295 tokens, 8589935614 bytes in all, but the file has 3028",
            ),
            (with_word(1, 7), "shard version 7; this program reads version 1"),
            (vec![7; 5], "5 bytes is an odd number: truncated, or not a shard of 16-bit tokens"),
        ] {
            let error = open(&bytes).unwrap_err().to_string();
            assert!(error.ends_with(&format!(": {message}")), "{error}");
        }
        let missing = Shard::open(Path::new("no/such.bin")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read no/such.bin: "), "{missing}");
        let folder = Shard::open(&std::env::temp_dir()).unwrap_err().to_string();
        assert!(folder.ends_with(" is a folder, not a file"), "{folder}");
    }
}
