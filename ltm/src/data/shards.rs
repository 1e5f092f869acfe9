//! Files of 16-bit token ids, memory-mapped.
//!
//! Two layouts, told apart by the first four bytes:
//! - ours and llm.c's: 256 little-endian 32-bit words (20240520, version 1, number of tokens, zeros), then the tokens;
//! - nanoGPT's: nothing but tokens. A nanoGPT file cannot be mistaken for the other: read as tokens, the magic number is
//!   55432 and 308, and 55432 is beyond GPT-2's vocabulary.
//!
//! Tokens are little-endian in the file and stay so in memory; whoever reads one applies `u16::from_le`.

use engine::map::FileMap;
use engine::{Error, Result};
use std::path::{Path, PathBuf};

/// First word of a shard with a header.
pub const MAGIC: u32 = 20_240_520;
/// First word of llm.c's shards of 32-bit tokens, which are refused by name.
const MAGIC_32_BIT: u32 = 20_240_801;
/// Second word.
pub const VERSION: u32 = 1;
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

/// Whether `first`, the first bytes of a file, begin a shard with a header.
pub fn has_magic(first: &[u8]) -> bool {
    word(first, 0).is_some_and(|magic| [MAGIC, MAGIC_32_BIT].contains(&magic))
}

/// Little-endian word `i` of `bytes`.
fn word(bytes: &[u8], i: usize) -> Option<u32> {
    bytes.get(4 * i..4 * i + 4).and_then(|four| four.try_into().ok()).map(u32::from_le_bytes)
}

/// Where the tokens of a shard begin: the length of its header, which is zero in nanoGPT's layout. Looks at the header and
/// the file's length only.
///
/// # Errors
/// A length or header that contradicts itself; the message lacks the file's name.
pub fn payload_start(file: &[u8]) -> Result<usize> {
    let fail = |message: String| Err(Error::new(message));
    if file.is_empty() {
        return fail("the file is empty".into());
    }
    let announced = |count: u32| HEADER as u64 + 2 * u64::from(count) == file.len() as u64;
    match (word(file, 0), word(file, 1), word(file, 2)) {
        (Some(MAGIC_32_BIT), ..) => {
            fail("a shard of 32-bit tokens (llm.c, Llama 3); only 16-bit tokens can be read".into())
        }
        (Some(MAGIC), ..) if file.len() < HEADER => {
            fail(format!("truncated: the header has {HEADER} bytes, the file {}", file.len()))
        }
        (Some(MAGIC), Some(version), _) if version != VERSION => {
            fail(format!("shard version {version}; this program reads version {VERSION}"))
        }
        (Some(MAGIC), _, Some(0)) => fail("the shard holds no token".into()),
        (Some(MAGIC), _, Some(count)) if !announced(count) => fail(format!(
            "the header announces {count} tokens, {} bytes in all, but the file has {}: truncated or damaged",
            HEADER as u64 + 2 * u64::from(count),
            file.len()
        )),
        (Some(MAGIC), ..) => Ok(HEADER),
        (_, Some(VERSION), Some(count)) if announced(count) => fail("the magic number of the header is damaged".into()),
        _ if !file.len().is_multiple_of(2) => {
            fail(format!("{} bytes is an odd number: truncated, or not a shard of 16-bit tokens", file.len()))
        }
        _ => Ok(0),
    }
}

/// Tokens in a file or in memory.
#[derive(Debug)]
pub struct Shard {
    name: PathBuf,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Mapped { map: FileMap, start: usize },
    Memory(Vec<u16>),
}

impl Shard {
    /// Maps the file at `path` and checks its header.
    ///
    /// # Errors
    /// A file that cannot be read or is not a shard.
    pub fn open(path: &Path) -> Result<Self> {
        let map = FileMap::open(path)?;
        let start = payload_start(&map).map_err(|error| error.at(path.display()))?;
        Ok(Self { name: path.into(), storage: Storage::Mapped { map, start } })
    }

    /// Tokens in memory; `name` stands for a file's name in messages.
    pub fn in_memory(name: impl Into<PathBuf>, mut tokens: Vec<u16>) -> Self {
        tokens.iter_mut().for_each(|token| *token = token.to_le());
        Self { name: name.into(), storage: Storage::Memory(tokens) }
    }

    /// The file's path, or what stands for it.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// All tokens, little-endian.
    pub fn tokens(&self) -> &[u16] {
        match &self.storage {
            // The map begins on a page and the header has an even length, so this cast finds the tokens aligned. Ids are checked at every
            // read.
            Storage::Mapped { map, start } => bytemuck::cast_slice(&map[*start..]),
            Storage::Memory(tokens) => tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate;

    fn shard_bytes(tokens: &[u16]) -> Vec<u8> {
        let mut bytes = header(tokens.len() as u32).to_vec();
        bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        bytes
    }

    fn open(bytes: &[u8]) -> Result<Vec<u16>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let shard = Shard::open(file.path()).map_err(|error| {
            let message = error.to_string();
            Error::new(message.strip_prefix(&format!("{}: ", file.path().display())).expect("the file is named"))
        })?;
        Ok(shard.tokens().iter().map(|&token| u16::from_le(token)).collect())
    }

    #[test]
    fn both_layouts_are_read() {
        let tokens: Vec<u16> = (0..1000).chain([50256, 65535]).collect();
        assert_eq!(open(&shard_bytes(&tokens)).unwrap(), tokens);
        let bare: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        assert_eq!(open(&bare).unwrap(), tokens);
        assert_eq!(open(&[1, 2]).unwrap(), [0x0201]);
        let memory = Shard::in_memory("memory", tokens.clone());
        assert!(memory.tokens().iter().map(|&token| u16::from_le(token)).eq(tokens));
    }

    #[test]
    fn damage_gets_one_clear_line() {
        let good = shard_bytes(&[1, 2, 3]);
        let with_word = |i: usize, word: u32| {
            let mut bytes = good.clone();
            bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
            bytes
        };
        for (bytes, message) in [
            (vec![], "the file is empty"),
            (good[..700].to_vec(), "truncated: the header has 1024 bytes, the file 700"),
            (
                good[..1028].to_vec(),
                "the header announces 3 tokens, 1030 bytes in all, but the file has 1028: truncated or damaged",
            ),
            (
                with_word(2, u32::MAX),
                "the header announces 4294967295 tokens, 8589935614 bytes in all, but the file has 1030: truncated or damaged",
            ),
            (with_word(2, 0), "the shard holds no token"),
            (with_word(1, 7), "shard version 7; this program reads version 1"),
            (with_word(0, MAGIC ^ 4), "the magic number of the header is damaged"),
            (with_word(0, 20_240_801), "a shard of 32-bit tokens (llm.c, Llama 3); only 16-bit tokens can be read"),
            (vec![7; 5], "5 bytes is an odd number: truncated, or not a shard of 16-bit tokens"),
        ] {
            assert_eq!(open(&bytes).unwrap_err().to_string(), message);
        }
        let missing = Shard::open(Path::new("no/such.bin")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read no/such.bin: "), "{missing}");
        assert_eq!(
            Shard::open(&std::env::temp_dir()).unwrap_err().to_string().split(" is ").nth(1),
            Some("a folder, not a file of tokens")
        );
    }

    /// No damage panics, and what is accepted lies within the file: nothing is ever allocated by an announced length.
    #[test]
    fn damaged_headers_never_panic() {
        let good = shard_bytes(&[5; 40]);
        let mut refused = 0;
        for case in 0..mutate::cases(20_000) {
            let bytes = mutate::damage(&good[..], case);
            match payload_start(&bytes) {
                Ok(start) => assert!(start <= bytes.len() && (bytes.len() - start).is_multiple_of(2)),
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().contains('\n'));
                }
            }
        }
        assert!(refused > 0);
        // Every single flipped bit of the three words that matter is refused.
        for bit in 0..96 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(payload_start(&bytes).is_err(), "bit {bit}");
        }
    }
}
