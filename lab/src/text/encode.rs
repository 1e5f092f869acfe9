//! Turns documents into tokens: pieces are read in order, encoded in parallel, and passed on in order.
//!
//! Memory is bounded by one batch of pieces and their tokens. The output does not depend on the number of threads, and
//! neither does the reported error if several documents are bad: it is the first.

use super::documents::{Format, Piece, Pieces, lines_in};
use engine::{Error, Result};
use ltm::data::Tokenizer;
use ltm::json;
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

/// A batch is full with this many bytes of text ...
const BATCH_BYTES: usize = 1 << 23;
/// ... or this many pieces.
const BATCH_PIECES: usize = 1 << 15;

/// Progress counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of input read.
    pub input_bytes: u64,
    /// Documents passed on, empty ones included.
    pub documents: u64,
    /// Files without a document.
    pub empty_files: u64,
    /// Tokens passed on.
    pub tokens: u64,
}

/// Encodes all `pieces` by their format and tokenizer and hands each to `sink`, in order, with its tokens and the bytes
/// of its text; the last piece of a non-empty document ends with the end token. Calls `progress` after every batch; its
/// error stops the work. Returns the total counts.
///
/// A document of one piece that violates the format or the tokenizer goes to `bad` with the error: it is skipped, or
/// the error of `bad` stops the work.
///
/// # Errors
/// The first of: unreadable input, a bad document of several pieces, an error of `sink`, `bad` or `progress`.
pub fn encode_all(
    mut pieces: Pieces<'_>,
    mut sink: impl FnMut(&Piece, &[u16], u64) -> Result<()>,
    bad: &mut dyn FnMut(Error) -> Result<()>,
    progress: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<Progress> {
    let (format, tokenizer) = (pieces.format, pieces.tokenizer);
    let mut done = Progress::default();
    let (mut document_bytes, mut is_inside) = (0, false);
    // The end of the input, once reached.
    let mut end = None;
    while end.is_none() {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while end.is_none() && bytes < BATCH_BYTES && batch.len() < BATCH_PIECES {
            match pieces.next() {
                Some(Ok(piece)) => {
                    bytes += piece.bytes.len();
                    batch.push(piece);
                }
                Some(Err(error)) => end = Some(Err(error)),
                None => end = Some(Ok(())),
            }
        }
        let encoded: Vec<_> = batch.par_iter().map(|piece| encode(piece, format, tokenizer)).collect();
        for (piece, result) in batch.iter().zip(encoded) {
            let is_whole = piece.is_last && !is_inside;
            is_inside = !piece.is_last;
            let (mut tokens, bytes) = match result {
                Err(error) if is_whole => {
                    bad(error)?;
                    continue;
                }
                result => result?,
            };
            document_bytes += bytes;
            if piece.is_last {
                if document_bytes > 0 {
                    tokens.push(tokenizer.end());
                }
                document_bytes = 0;
                done.documents += 1;
            }
            done.tokens += tokens.len() as u64;
            sink(piece, &tokens, bytes)?;
        }
        (done.input_bytes, done.empty_files) = (pieces.consumed(), pieces.empty_files());
        progress(done)?;
    }
    end.unwrap_or(Ok(())).map(|()| done)
}

/// Tokens of a piece, without the end token, and the bytes of its text.
fn encode(piece: &Piece, format: &Format, tokenizer: &dyn Tokenizer) -> Result<(Vec<u16>, u64)> {
    let text = text_of(piece, format, tokenizer)?;
    let mut tokens = Vec::with_capacity(text.len() / 3 + 2);
    tokenizer.encode(&text, &mut tokens).map_err(|error| error.at(&piece.place))?;
    Ok((tokens, text.len() as u64))
}

/// The text of a piece as UTF-8.
///
/// # Errors
/// If it is not UTF-8; the message names the line and the reason why it must be.
pub fn utf8<'t>(text: &'t [u8], piece: &Piece, why: fmt::Arguments<'_>) -> Result<&'t str> {
    std::str::from_utf8(text).map_err(|error| {
        let mut place = piece.place.clone();
        place.line += lines_in(&text[..error.valid_up_to()]);
        Error::new(format!("{place}: invalid UTF-8, and {why}"))
    })
}

/// The text of a piece: for jsonl the field of its line.
///
/// # Errors
/// If the record is [bad](Piece::bad), the line is not an object or lacks the field, or the text is not UTF-8 for a
/// tokenizer that needs it.
pub fn text_of<'p>(piece: &'p Piece, format: &Format, tokenizer: &dyn Tokenizer) -> Result<Cow<'p, [u8]>> {
    if let Some(bad) = &piece.bad {
        return Err(bad.clone());
    }
    let text = if let Format::Jsonl { field } = format {
        let line = utf8(&piece.bytes, piece, format_args!("JSON must be UTF-8"))?;
        Cow::Owned(json_field(line, field).map_err(|error| error.at(&piece.place))?.into_bytes())
    } else {
        Cow::Borrowed(&piece.bytes[..])
    };
    if tokenizer.needs_utf8() {
        utf8(&text, piece, format_args!("tokenizer {} needs UTF-8 (bytes takes anything)", tokenizer.name()))?;
    }
    Ok(text)
}

/// The string `field` of the object on a line.
fn json_field(line: &str, field: &str) -> Result<String> {
    // The place already names the line of the file.
    let in_line = |error: Error| Error::new(error.to_string().replacen("line 1, ", "", 1));
    let mut entries: Map<String, Value> = json::from_bytes(line).map_err(in_line)?;
    match entries.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Error::new(format!("field {field:?} is not a string"))),
        None => {
            let keys: Vec<_> = entries.keys().map(|key| key.escape_debug().to_string()).collect();
            Err(Error::new(format!("no field {field:?}; fields are: {}", keys.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::TextSplit;
    use crate::text::gpt2::{BEGIN, Gpt2};
    use ltm::data::Bytes;
    use std::io;

    fn tokens(text: impl Into<Vec<u8>>, format: &Format, tokenizer: &dyn Tokenizer) -> Result<Vec<u16>> {
        let pieces = Pieces::of_reader("in", io::Cursor::new(text.into()), format, tokenizer)?;
        let mut all = Vec::new();
        let sink = |_: &Piece, some: &[u16], _| {
            all.extend_from_slice(some);
            Ok(())
        };
        encode_all(pieces, sink, &mut Err, &mut |_| Ok(()))?;
        Ok(all)
    }

    fn jsonl() -> Format {
        Format::Jsonl { field: "text".into() }
    }

    #[test]
    fn documents_end_with_the_end_token_and_empty_ones_leave_no_trace() {
        let lines = Format::Text(TextSplit::Lines);
        assert_eq!(tokens("ab\n\nc\n", &lines, &Bytes).unwrap(), [97, 98, 257, 99, 257]);
        assert!(tokens("", &lines, &Bytes).unwrap().is_empty());
        let text = "\u{FEFF}{\"text\": \"a\\n\", \"n\": 1}\n{\"text\": \"\"}\n{\"text\": \"é\"}\n";
        assert_eq!(tokens(text, &jsonl(), &Bytes).unwrap(), [97, 10, 257, 0xc3, 0xa9, 257]);
    }

    #[test]
    fn the_first_bad_document_is_named() {
        let good = "{\"text\": \"x\"}\n".repeat(200);
        for (line, message) in [
            (&b"{\"text\": \"\xff\"}"[..], "in:201: invalid UTF-8, and JSON must be UTF-8"),
            (b"[1]", "in:201: column 0: invalid type: sequence, expected a map"),
            (b"{\"text\": 1}", "in:201: field \"text\" is not a string"),
            (b"{\"title\": \"\", \"body\": \"\"}", "in:201: no field \"text\"; fields are: body, title"),
            (b"{\"text\": \"x\"", "in:201: "),
        ] {
            let text = [good.as_bytes(), line, b"\n{broken\n"].concat();
            let error = tokens(text, &jsonl(), &Bytes).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let mut text = "some words,\n".repeat(100_000).into_bytes();
        text[1_200_000 - 5] = 0xfe;
        for split in [TextSplit::File, TextSplit::Lines] {
            let error = tokens(text.clone(), &Format::Text(split), &Gpt2::new(BEGIN)).unwrap_err().to_string();
            assert!(error.starts_with("in:100000: invalid UTF-8, and tokenizer gpt2 needs UTF-8"), "{error}");
        }
        assert_eq!(tokens(text.clone(), &Format::Text(TextSplit::File), &Bytes).unwrap().len(), text.len() + 1);
    }
}
