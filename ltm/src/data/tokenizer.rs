//! Text to token ids and back.
//!
//! Every tokenizer has two tokens without text: one before a document (an input, never a target) and one after it (a
//! target; without it, a model's number would not be a probability of the whole document). Ids fit into 16 bits, as
//! token shards require.

use crate::config;
use engine::{Error, Result};

/// Text to token ids and back.
pub trait Tokenizer: Send + Sync {
    /// The name that a run folder and a data folder record.
    fn name(&self) -> config::Tokenizer;

    /// Number of ids, begin and end included: valid ids are `0..vocab`.
    fn vocab(&self) -> usize {
        self.name().vocab()
    }

    /// The token before a document.
    fn begin(&self) -> u16;

    /// The token after a document.
    fn end(&self) -> u16;

    /// Whether text must be valid UTF-8.
    fn needs_utf8(&self) -> bool {
        self.name() != config::Tokenizer::Bytes
    }

    /// Appends the tokens of `text` to `out`: without begin and end, and never an id without text.
    ///
    /// # Errors
    /// If [`Tokenizer::needs_utf8`] and the text is not; the message names the byte.
    fn encode(&self, text: &[u8], out: &mut Vec<u16>) -> Result<()>;

    /// The last place `0 < at <= text.len()` at which `text`, *whatever follows it*, may be cut such that the tokens of the
    /// two parts are the tokens of the whole. `None` if there is no such place.
    fn last_cut(&self, text: &[u8]) -> Option<usize>;

    /// The text of one token: empty for begin and end, `None` beyond the vocabulary.
    fn token_bytes(&self, id: u16) -> Option<&[u8]>;

    /// The text of `ids`, without begin and end.
    ///
    /// # Errors
    /// An id beyond the vocabulary.
    fn decode(&self, ids: &[u16]) -> Result<Vec<u8>> {
        let mut text = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            let bytes = self.token_bytes(id).ok_or_else(|| {
                Error::new(format!("token {id} is beyond the {} ids of tokenizer {}", self.vocab(), self.name()))
            })?;
            text.extend_from_slice(bytes);
        }
        Ok(text)
    }
}

/// One token per byte; 256 begins a document, and 257 ends it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes;

/// Byte `i` at place `i`, so that every token's text is a slice of it.
static ALL_BYTES: [u8; 256] = {
    let mut all = [0; 256];
    let mut i = 0;
    while i < 256 {
        all[i] = i as u8;
        i += 1;
    }
    all
};

impl Tokenizer for Bytes {
    fn name(&self) -> config::Tokenizer {
        config::Tokenizer::Bytes
    }

    fn begin(&self) -> u16 {
        256
    }

    fn end(&self) -> u16 {
        257
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u16>) -> Result<()> {
        out.extend(text.iter().map(|&byte| u16::from(byte)));
        Ok(())
    }

    fn last_cut(&self, text: &[u8]) -> Option<usize> {
        (!text.is_empty()).then_some(text.len())
    }

    fn token_bytes(&self, id: u16) -> Option<&[u8]> {
        match usize::from(id) {
            i @ 0..256 => Some(&ALL_BYTES[i..=i]),
            256 | 257 => Some(&[]),
            _ => None,
        }
    }
}
