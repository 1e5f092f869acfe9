//! Documents to tokens: pieces are read in order, encoded in parallel, and handed on in order.
//!
//! Memory is bounded by one batch of pieces and their tokens. What comes out does not depend on the number of threads, and
//! neither does which error is reported when several documents are bad: the first.

use super::documents::{At, Piece, Pieces, Position};
use super::formats::Format;
use engine::{Error, Result};
use ltm::data::Tokenizer;
use ltm::json::{self, Value};
use rayon::prelude::*;
use std::borrow::Cow;

/// A batch is full with this many bytes of text ...
const BATCH_BYTES: usize = 1 << 23;
/// ... or this many pieces.
const BATCH_PIECES: usize = 1 << 15;

/// Tokens of a document, or of a part of one.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    /// Number of the document among all that were read, empty ones included.
    pub document: u64,
    /// Its next tokens; with [`Position::Last`] the end token is among them, unless the document is empty.
    pub tokens: &'a [u16],
    /// Bytes of text behind them.
    pub bytes: u64,
    /// Whether the document goes on.
    pub position: Position,
}

/// How far things are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of input read.
    pub input_bytes: u64,
    /// Documents handed on, empty ones included.
    pub documents: u64,
    /// Tokens handed on.
    pub tokens: u64,
}

/// Encodes all `pieces` and hands their tokens to `sink`, in order. Calls `progress` after every batch.
///
/// # Errors
/// The first of: input that cannot be read, a document that is not what `format` or `tokenizer` demand, an error of `sink`.
pub fn encode_all(
    mut pieces: Pieces<'_>,
    format: &Format,
    tokenizer: &dyn Tokenizer,
    mut sink: impl FnMut(Encoded<'_>) -> Result<()>,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let mut done = Progress::default();
    let mut document_bytes = 0;
    loop {
        let (batch, end) = read_batch(&mut pieces);
        let encoded: Vec<_> = batch.par_iter().map(|piece| encode(piece, format, tokenizer)).collect();
        for (piece, result) in batch.iter().zip(encoded) {
            let (mut tokens, bytes) = result?;
            document_bytes += bytes;
            if piece.position == Position::Last {
                if document_bytes > 0 {
                    tokens.push(tokenizer.end());
                }
                document_bytes = 0;
                done.documents += 1;
            }
            done.tokens += tokens.len() as u64;
            sink(Encoded { document: piece.document, tokens: &tokens, bytes, position: piece.position })?;
        }
        done.input_bytes = pieces.consumed();
        progress(done);
        match end {
            BatchEnd::Full => {}
            BatchEnd::OfInput => return Ok(()),
            BatchEnd::Failure(error) => return Err(error),
        }
    }
}

/// Why a batch has no further piece.
enum BatchEnd {
    Full,
    OfInput,
    Failure(Error),
}

fn read_batch(pieces: &mut Pieces<'_>) -> (Vec<Piece>, BatchEnd) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES && batch.len() < BATCH_PIECES {
        match pieces.next() {
            None => return (batch, BatchEnd::OfInput),
            Some(Err(error)) => return (batch, BatchEnd::Failure(error)),
            Some(Ok(piece)) => {
                bytes += piece.bytes.len();
                batch.push(piece);
            }
        }
    }
    (batch, BatchEnd::Full)
}

/// Tokens of a piece, without the end token, and the bytes of its text.
fn encode(piece: &Piece, format: &Format, tokenizer: &dyn Tokenizer) -> Result<(Vec<u16>, u64)> {
    let text = text_of(piece, format)?;
    check_utf8(&text, piece, tokenizer)?;
    let mut tokens = Vec::with_capacity(text.len() / 3 + 2);
    tokenizer.encode(&text, &mut tokens).map_err(|error| error.at(&piece.place))?;
    Ok((tokens, text.len() as u64))
}

/// Whether `tokenizer` takes the text of a piece.
pub fn check_utf8(text: &[u8], piece: &Piece, tokenizer: &dyn Tokenizer) -> Result<()> {
    match std::str::from_utf8(text) {
        Err(error) if tokenizer.needs_utf8() => {
            let error = piece.place.invalid_utf8(error.valid_up_to());
            Err(Error::new(format!("{error}, and tokenizer {} needs UTF-8 (bytes takes anything)", tokenizer.name())))
        }
        _ => Ok(()),
    }
}

/// The text of a piece: for jsonl the field of its line.
pub fn text_of<'p>(piece: &'p Piece, format: &Format) -> Result<Cow<'p, [u8]>> {
    let Format::Jsonl { field } = format else { return Ok(Cow::Borrowed(&piece.bytes)) };
    debug_assert!(matches!(piece.place.at, At::Line(_)));
    json_field(&piece.bytes, field).map(|text| Cow::Owned(text.into_bytes())).map_err(|error| error.at(&piece.place))
}

/// The string `field` of the object on a line.
fn json_field(line: &[u8], field: &str) -> Result<String> {
    if let Err(error) = std::str::from_utf8(line) {
        return Err(Error::new(format!("invalid UTF-8 at byte {} of the line", error.valid_up_to())));
    }
    // The place says which line of the file it is; without its end, a string that nothing closes is said to be just that.
    let in_line = |error: Error| Error::new(error.to_string().replacen("line 1, ", "", 1));
    let Value::Object(entries) = json::parse(line.trim_ascii_end()).map_err(in_line)? else {
        return Err(Error::new("not a JSON object"));
    };
    let keys = || entries.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ");
    match entries.iter().find(|(key, _)| key == field) {
        Some((_, Value::String(text))) => Ok(text.clone()),
        Some(_) => Err(Error::new(format!("field {field:?} is not a string"))),
        None => Err(Error::new(format!("no field {field:?}; there are: {}", keys()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::formats::TextSplit;
    use crate::text::gpt2::Gpt2;
    use ltm::data::Bytes;
    use std::io::{self, Read};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn tokens(text: impl Into<Vec<u8>>, format: &Format, tokenizer: &dyn Tokenizer) -> Result<Vec<u16>> {
        let pieces = Pieces::of_reader("in", Box::new(io::Cursor::new(text.into())), format, tokenizer);
        let mut all = Vec::new();
        let sink = |encoded: Encoded<'_>| {
            all.extend_from_slice(encoded.tokens);
            Ok(())
        };
        encode_all(pieces, format, tokenizer, sink, &mut |_| {})?;
        Ok(all)
    }

    fn jsonl() -> Format {
        Format::Jsonl { field: "text".into() }
    }

    #[test]
    fn documents_end_with_the_end_token_and_empty_ones_leave_no_trace() {
        let lines = Format::Text(TextSplit::Lines);
        assert_eq!(tokens("ab\n\nc\n", &lines, &Bytes).unwrap(), [97, 98, 257, 99, 257]);
        assert_eq!(tokens("", &lines, &Bytes).unwrap(), [0u16; 0]);
        let text = "{\"text\": \"a\\n\", \"n\": 1}\n{\"text\": \"\"}\n{\"text\": \"é\"}\n";
        assert_eq!(tokens(text, &jsonl(), &Bytes).unwrap(), [97, 10, 257, 0xc3, 0xa9, 257]);
    }

    #[test]
    fn the_first_bad_document_is_named() {
        let good = "{\"text\": \"x\"}\n".repeat(200);
        for (line, message) in [
            (&b"{\"text\": \"\xff\"}"[..], "in:201: invalid UTF-8 at byte 10 of the line"),
            (b"[1]", "in:201: not a JSON object"),
            (b"{\"text\": 1}", "in:201: field \"text\" is not a string"),
            (b"{\"title\": \"\", \"body\": \"\"}", "in:201: no field \"text\"; there are: title, body"),
        ] {
            let text = [good.as_bytes(), line, b"\n{broken\n"].concat();
            assert_eq!(tokens(text, &jsonl(), &Bytes).unwrap_err().to_string(), message);
        }
        let broken = tokens([good.as_bytes(), b"{\"text\": \"x\""].concat(), &jsonl(), &Bytes).unwrap_err().to_string();
        assert!(broken.starts_with("in:201: "), "{broken}");
    }

    #[test]
    fn invalid_utf8_in_text_is_named_by_its_byte() {
        let mut text = "some words, ".repeat(100_000).into_bytes();
        text[1_000_003] = 0xfe;
        for split in [TextSplit::File, TextSplit::Lines] {
            let error = tokens(text.clone(), &Format::Text(split), &Gpt2::new()).unwrap_err().to_string();
            assert!(error.starts_with("in: invalid UTF-8 at byte 1000003, and tokenizer gpt2 needs UTF-8"), "{error}");
            assert_eq!(tokens(text.clone(), &Format::Text(split), &Bytes).unwrap().len(), text.len() + 1);
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_tokens() {
        let text: String = (0..60_000).map(|i| format!("{{\"text\": \"document {i}, some more words\"}}\n")).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| tokens(text.clone(), &jsonl(), &Bytes)).unwrap()
        };
        let one = with(1);
        assert!(one.len() > 1_000_000);
        assert_eq!(one, with(3));
    }

    /// Short documents without end: what has been read stays ahead of what has been handed on by one batch at most.
    #[test]
    fn memory_does_not_depend_on_the_number_of_documents() {
        struct Counted<R>(R, Arc<AtomicU64>);
        impl<R: Read> Read for Counted<R> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let n = self.0.read(out)?;
                self.1.fetch_add(n as u64, Ordering::Relaxed);
                Ok(n)
            }
        }
        let read = Arc::new(AtomicU64::new(0));
        let text = Counted(io::repeat(b'\n').take(1 << 14).chain(io::repeat(b'x').take(1 << 26)), read.clone());
        let format = Format::Text(TextSplit::File);
        let pieces = Pieces::of_reader("in", Box::new(text), &format, &Bytes);
        let mut handed_on = 0;
        let sink = |encoded: Encoded<'_>| {
            let held = read.load(Ordering::Relaxed) - handed_on;
            assert!(held < (BATCH_BYTES + (1 << 21)) as u64, "{held} bytes held");
            handed_on += encoded.bytes;
            Ok(())
        };
        let mut last = Progress::default();
        encode_all(pieces, &format, &Bytes, sink, &mut |now| last = now).unwrap();
        let bytes = (1 << 26) + (1 << 14);
        assert_eq!(last, Progress { input_bytes: bytes, documents: 1, tokens: bytes + 1 });
    }
}
