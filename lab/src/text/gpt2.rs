//! GPT-2's byte-pair encoding, from the crate that embeds it.
//!
//! Ids 0..=50255 are text. GPT-2's own `<|endoftext|>`, 50256, ends a document; 50257, an additional id, begins one. In
//! the tokenizer `gpt2-plain`, which has only GPT-2's ids, 50256 also begins documents. The characters `<|endoftext|>`
//! in a text are encoded as ordinary text: a document cannot end itself.
//!
//! # Where a text can be cut
//! The encoding first splits text by a regular expression, then merges pairs within each part: `'(?:[sdmt]|ll|ve|re)|
//! ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`. No alternative matches whitespace after another character, so
//! there is always a boundary where whitespace begins. The expression never looks back, so the text right of the
//! boundary splits as it would alone. It looks ahead only inside whitespace, so the text left of it does too. So a text
//! can be cut before any whitespace that follows another character.

use super::documents::char_floor;
use engine::{Error, Result};
use ltm::config::Tokenizer as Name;
use ltm::data::Tokenizer;
use std::collections::HashSet;
use tiktoken_rs::CoreBPE;

/// GPT-2's `<|endoftext|>`.
pub const END: u16 = 50256;
/// One more than GPT-2 has.
pub const BEGIN: u16 = 50257;

/// The regular expression gets text in parts of about this many bytes, up to the next cut.
const PART: usize = 1 << 16;

/// The longest part. Without a cut for so long (say half a megabyte of spaces), the part ends at a character, because
/// the regular expression engine fails on whitespace not much longer than this.
const LONGEST_PART: usize = 1 << 19;

/// GPT-2's byte-pair encoding, with or without a separate begin token.
pub struct Gpt2 {
    begin: u16,
    bpe: &'static CoreBPE,
    /// The text of each token.
    texts: Vec<Vec<u8>>,
}

impl Gpt2 {
    /// Loads the embedded merges. Documents begin with [`BEGIN`], or with [`END`], which uses only GPT-2's ids.
    pub fn new(begin: u16) -> Self {
        let bpe = tiktoken_rs::r50k_base_singleton();
        let text = |id| bpe.decode_bytes(&[id]).expect("the embedded vocabulary has every id below the end token");
        let texts = (0..u32::from(END)).map(text).chain((END..=begin).map(|_| Vec::new())).collect();
        Self { begin, bpe, texts }
    }
}

impl Tokenizer for Gpt2 {
    fn name(&self) -> Name {
        if self.begin == END { Name::Gpt2Plain } else { Name::Gpt2 }
    }

    fn begin(&self) -> u16 {
        self.begin
    }

    fn end(&self) -> u16 {
        END
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u16>) -> Result<()> {
        let mut rest = std::str::from_utf8(text)
            .map_err(|error| Error::new(format!("invalid UTF-8 at byte {}", error.valid_up_to())))?;
        let nothing_special = HashSet::new();
        while !rest.is_empty() {
            let (part, tail) = rest.split_at(part_end(rest));
            let (ids, _) = self
                .bpe
                .encode(part, &nothing_special)
                .map_err(|error| Error::new(format!("the GPT-2 tokenizer cannot split the text: {error}")))?;
            out.extend(ids.iter().map(|&id| id as u16));
            rest = tail;
        }
        Ok(())
    }

    fn last_cut(&self, text: &[u8]) -> Option<usize> {
        (1..text.len()).rev().find(|&at| is_cut(text, at))
    }

    fn token_bytes(&self, id: u16) -> Option<&[u8]> {
        self.texts.get(usize::from(id)).map(Vec::as_slice)
    }
}

/// Whether whitespace begins at `at`: ASCII whitespace after a complete character that is not whitespace.
fn is_cut(text: &[u8], at: usize) -> bool {
    text[at].is_ascii_whitespace() && {
        let before = &text[at.saturating_sub(4)..at];
        let start = before.iter().rposition(|byte| byte & 0xC0 != 0x80).unwrap_or(0);
        std::str::from_utf8(&before[start..]).is_ok_and(|last| !last.contains(char::is_whitespace))
    }
}

/// The length of the next part of a non-empty text for the regular expression.
fn part_end(text: &str) -> usize {
    let longest = char_floor(text.as_bytes(), LONGEST_PART);
    if longest <= PART {
        return longest;
    }
    (PART..longest).find(|&at| is_cut(text.as_bytes(), at)).unwrap_or(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::rng::Stream;

    fn encode(tokenizer: &Gpt2, text: &str) -> Vec<u16> {
        let mut ids = Vec::new();
        tokenizer.encode(text.as_bytes(), &mut ids).unwrap();
        ids
    }

    /// Ids from GPT-2's published encoder.
    #[test]
    fn known_ids() {
        let gpt2 = Gpt2::new(BEGIN);
        assert_eq!(encode(&gpt2, "Hello world"), [15496, 995]);
        assert_eq!(encode(&gpt2, "hello\n\n  there's"), [31373, 628, 220, 612, 338]);
        assert_eq!(gpt2.vocab(), 50258);
        let plain = Gpt2::new(END);
        assert_eq!((plain.vocab(), plain.begin(), plain.end()), (50257, 50256, 50256));
        assert_eq!(encode(&plain, "Hello world"), [15496, 995]);
        assert_eq!(gpt2.token_bytes(995), Some(&b" world"[..]));
        let marker = encode(&gpt2, "<|endoftext|>");
        assert!(marker.len() > 1 && !marker.contains(&END), "a text must not end itself: {marker:?}");
        assert_eq!(gpt2.decode(&marker).unwrap(), b"<|endoftext|>");
        let error = gpt2.encode(b"ab\xff", &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "invalid UTF-8 at byte 2");
    }

    #[test]
    fn any_text_comes_back_and_may_be_cut_at_every_cut() {
        let gpt2 = Gpt2::new(BEGIN);
        let atoms = [
            " ", "  ", "\n", "\t", "\r\n", "a", "the", "'s", "'", "'ll", "9", "2024", "!", "?!", "é", "中", "。",
            "\u{a0}", "\u{3000}", "\u{85}", "\u{2028}", "🙂", "e\u{301}", "\u{b}",
        ];
        let mut cuts = 0;
        for round in 0..300 {
            let dice = Stream::new(1, 1).step(round);
            let text: String = (0..40).map(|i| atoms[dice.below(i, atoms.len())]).collect();
            let whole = encode(&gpt2, &text);
            let mut last = None;
            assert_eq!(gpt2.decode(&whole).unwrap(), text.as_bytes());
            for at in (1..text.len()).filter(|&at| is_cut(text.as_bytes(), at)) {
                cuts += 1;
                last = Some(at);
                let (left, right) = text.split_at(at);
                assert_eq!([encode(&gpt2, left), encode(&gpt2, right)].concat(), whole, "{left:?} | {right:?}");
            }
            assert_eq!(gpt2.last_cut(text.as_bytes()), last);
        }
        assert!(cuts > 1000, "{cuts}");
    }

    #[test]
    fn endless_runs_are_encoded_too() {
        let gpt2 = Gpt2::new(BEGIN);
        for unit in [" ", "\u{3000}", "a", "中"] {
            let text = unit.repeat(1_500_000);
            assert_eq!(gpt2.decode(&encode(&gpt2, &text)).unwrap(), text.as_bytes(), "{unit:?}");
        }
    }
}
