//! Files of 16-bit token ids, with random reads and sequential writes.
//!
//! Two layouts, distinguished by the first four bytes:
//! - ours and llm.c's: 256 little-endian 32-bit words (20240520, version 1, number of tokens, zeros), then the tokens;
//! - nanoGPT's: only tokens. It cannot be confused with the other: read as tokens, the magic number is 55432 and 308,
//!   and 55432 is beyond GPT-2's vocabulary.

use super::folder::{Part, ShardEntry, Split};
use crate::hash;
use engine::{Error, Result, file};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

const _: () = assert!(cfg!(target_endian = "little"), "token files are little-endian, and so must this machine be");

/// First word of a shard with a header.
const MAGIC: u32 = 20_240_520;
/// Second word.
const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER: usize = 1024;

/// Tokens that one thread scans.
const CHUNK: u64 = 1 << 20;

/// The header of a shard of `tokens` tokens.
pub fn header(tokens: u32) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    for (i, word) in [MAGIC, VERSION, tokens].into_iter().enumerate() {
        bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The offset of the tokens in a shard of `found` bytes: the length of its header, which is zero in nanoGPT's layout.
/// `head` is the start of the file, up to [`HEADER`] bytes.
///
/// # Errors
/// If length and header contradict each other. The message does not name the file.
pub fn payload_start(head: &[u8], found: u64) -> Result<u64> {
    let word = |i: usize| head.get(4 * i..4 * i + 4).map_or(0, |word| u32::from_le_bytes(word.try_into().expect("4")));
    let (version, tokens) = (word(1), word(2));
    let start = if word(0) == MAGIC { HEADER as u64 } else { 0 };
    let bytes = HEADER as u64 + 2 * u64::from(tokens);
    let wrong = if found == start {
        "it has no tokens".into()
    } else if start == 0 && found % 2 == 1 {
        format!("{found} bytes is an odd number: truncated, or not a shard of 16-bit tokens")
    } else if start > 0 && version != VERSION {
        format!("shard version {version}; this program reads version {VERSION}")
    } else if start > 0 && found != bytes {
        format!("the header promises {tokens} tokens, {bytes} bytes in all, but the file has {found}")
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
    /// The [checksum](super::checksum) of its tokens in hexadecimal, which identifies a text in any packing; older runs
    /// had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_checksum: Option<String>,
}

impl DataFile {
    /// The file at `path`, without a checksum of tokens.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let sha256 = hash::sha256_file(path)?;
        let meta = fs::metadata(path).map_err(|error| Error::io("read", path, &error))?;
        Ok(Self { path: path.into(), bytes: meta.len(), sha256, tokens_checksum: None })
    }

    /// The SHA-256 of one file; of several, the SHA-256 of their digests one after the other.
    pub fn digest(files: &[Self]) -> String {
        match files {
            [one] => one.sha256.clone(),
            all => hash::sha256(all.iter().map(|file| &*file.sha256).collect::<String>()),
        }
    }

    /// Whether both have the same content, as files or as tokens.
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
    /// The offset of the tokens in the file, which is opened for every read: there may be more files than a process may
    /// have open.
    File {
        start: u64,
        /// When the file that was hashed was last written, if the system tells.
        modified: Mutex<Option<SystemTime>>,
    },
    Memory(Vec<u16>),
}

impl Shard {
    /// Opens the file at `path`, checks its header and hashes it.
    ///
    /// # Errors
    /// A file that cannot be read or is not a shard.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |error: io::Error| Error::io("read", path, &error);
        let file = file::open(path)?;
        let meta = file.metadata().map_err(fail)?;
        let bytes = meta.len();
        let mut head = Vec::new();
        (&file).take(HEADER as u64).read_to_end(&mut head).map_err(fail)?;
        let start = payload_start(&head, bytes).map_err(|error| error.at(path.display()))?;
        let sha256 = hash::sha256_of(head.chain(file)).map_err(fail)?;
        let file = DataFile { path: path.into(), bytes, sha256, tokens_checksum: None };
        Ok(Self { file, tokens: Tokens::File { start, modified: Mutex::new(meta.modified().ok()) } })
    }

    /// Number of tokens; never zero.
    #[expect(clippy::len_without_is_empty, reason = "no shard is empty")]
    pub fn len(&self) -> u64 {
        match &self.tokens {
            Tokens::File { start, .. } => (self.file.bytes - start) / 2,
            Tokens::Memory(tokens) => tokens.len() as u64,
        }
    }

    /// Copies tokens `at..at + out.len()`, which must be among those that there are.
    ///
    /// # Errors
    /// A file that cannot be read, or has been written since it was opened.
    pub fn read(&self, at: u64, out: &mut [u16]) -> Result<()> {
        match &self.tokens {
            Tokens::File { start, modified } => {
                let DataFile { path, bytes, sha256, .. } = &self.file;
                let fail = |error: io::Error| Error::io("read", path, &error);
                let mut file = file::open(path)?;
                let meta = file.metadata().map_err(fail)?;
                let (length, written) = (meta.len(), meta.modified().ok());
                let mut known = modified.lock().unwrap_or_else(PoisonError::into_inner);
                // A file that was only touched is the same.
                if length != *bytes || (written != *known && hash::sha256_of(&file).map_err(fail)? != *sha256) {
                    return Err(Error::new(format!(
                        "{} has changed since it was opened ({length} bytes now, {bytes} then): restore the old file",
                        path.display()
                    )));
                }
                *known = written;
                drop(known);
                file.seek(SeekFrom::Start(start + 2 * at)).map_err(fail)?;
                file.read_exact(bytemuck::cast_slice_mut(out)).map_err(fail)
            }
            Tokens::Memory(tokens) => {
                out.copy_from_slice(&tokens[at as usize..][..out.len()]);
                Ok(())
            }
        }
    }

    /// The results of `look` on tokens `range`, piece by piece in order, on all threads. `look` gets the index of a
    /// piece's first token and the piece.
    ///
    /// # Errors
    /// As [`read`](Self::read), and those of `look`.
    pub(super) fn look<T: Send>(
        &self,
        range: Range<u64>,
        look: impl Fn(u64, &[u16]) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let pieces = range.end.saturating_sub(range.start).div_ceil(CHUNK);
        let piece = |i: u64| {
            let at = range.start + i * CHUNK;
            let mut tokens = vec![0; CHUNK.min(range.end - at) as usize];
            self.read(at, &mut tokens)?;
            look(at, &tokens)
        };
        // The first error in order, independent of timing.
        let found: Vec<Result<T>> = (0..pieces).into_par_iter().map(piece).collect();
        found.into_iter().collect()
    }
}

/// Writes one split's tokens into shards.
pub struct ShardWriter<'a> {
    folder: &'a Path,
    split: Split,
    /// Most tokens of a shard.
    limit: u32,
    /// The current shard, and its number of tokens.
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
            let fail = |error: io::Error| Error::io("write", &path, &error);
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

    /// The current shard.
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
        let sha256 = hash::sha256_file(&path)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.part.shards.push(ShardEntry { file, tokens: tokens.into(), sha256 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn open(bytes: &[u8]) -> Result<Vec<u16>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let shard = Shard::open(file.path())?;
        assert_eq!((shard.file.bytes, shard.file.sha256.len()), (bytes.len() as u64, 64));
        let mut tokens = vec![0; shard.len() as usize];
        shard.read(0, &mut tokens).map(|()| tokens)
    }

    #[test]
    fn copies_are_known_by_bytes_or_tokens() {
        let file = |sha256: &str, tokens: Option<&str>| DataFile {
            sha256: sha256.into(),
            tokens_checksum: tokens.map(String::from),
            ..DataFile::default()
        };
        // As runs recorded it before tokens had a checksum.
        let old: DataFile = crate::json::from_bytes(r#"{"path": "a.txt", "bytes": 3, "sha256": "0f"}"#).unwrap();
        let known = file("0f", Some("a1"));
        for (one, other, is_copy) in [
            (&old, file("0f", Some("a1")), true),
            (&old, file("1f", Some("a1")), false),
            (&old, file("1f", None), false),
            (&old, old.clone(), true),
            (&known, file("1f", Some("a1")), true),
            (&known, file("1f", Some("a2")), false),
        ] {
            assert_eq!(one.is_copy_of(&other), is_copy, "{one:?} {other:?}");
        }
        // As text, because many programs read a JSON number as f64.
        assert!(crate::json::line(&known).contains(r#""tokens_checksum":"a1""#));
    }

    #[test]
    fn several_files_have_the_digest_of_their_digests() {
        let file = |sha256: &str| DataFile { sha256: sha256.into(), ..DataFile::default() };
        let [one, two] = [file("0f"), file("1f")];
        assert_eq!(DataFile::digest(std::slice::from_ref(&one)), "0f");
        assert_eq!(DataFile::digest(&[one, two]), hash::sha256("0f1f"));
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
            (vec![], "it has no tokens"),
            (header(0).to_vec(), "it has no tokens"),
            (good[..700].to_vec(), "the header promises 1002 tokens, 3028 bytes in all, but the file has 700"),
            (
                with_word(2, u32::MAX),
                "the header promises 4294967295 tokens, 8589935614 bytes in all, but the file has 3028",
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

    #[test]
    fn a_file_that_changes_gets_one_clear_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        fs::write(&path, [5; 200]).unwrap();
        let shard = Shard::open(&path).unwrap();
        let place = path.display();
        let read = || shard.read(80, &mut [0; 20]).map_err(|error| error.to_string());
        for length in [100, 202, 0] {
            File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
            let said =
                format!("{place} has changed since it was opened ({length} bytes now, 200 then): restore the old file");
            assert_eq!(read().unwrap_err(), said);
            assert_eq!(shard.look(0..100, |_, _| Ok(())).unwrap_err().to_string(), said);
        }
        fs::remove_file(&path).unwrap();
        assert!(read().unwrap_err().starts_with(&format!("cannot read {place}: ")));
        for (byte, seconds, same) in [(6, 1, false), (5, 2, true), (6, 3, false)] {
            fs::write(&path, [byte; 200]).unwrap();
            let later = SystemTime::now() + Duration::from_secs(seconds);
            File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
            assert_eq!(read().is_ok(), same);
        }
    }

    /// Every shard of a large corpus is open at some time, but not all at once.
    #[cfg(target_os = "linux")]
    #[test]
    fn shards_hold_no_files_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [5; 200]).unwrap();
        let shard = Shard::open(file.path()).unwrap();
        shard.read(0, &mut [0; 100]).unwrap();
        let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        assert_eq!(open.filter(|path| path == file.path()).count(), 1, "the one of this test");
    }
}
