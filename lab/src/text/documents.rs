//! Streams documents out of files, in pieces, so that memory depends neither on the size of an input nor on the size of a
//! document: a long text comes in several pieces, cut where the tokenizer says that cutting changes nothing.
//!
//! Files may be compressed by gzip or Zstandard. Only jsonl and csv records must fit in memory whole; they may have [`LONGEST_RECORD`] bytes.

use super::formats::{Format, TextSplit};
use engine::{Error, Result};
use ltm::data::Tokenizer;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A text is cut at the first opportunity beyond this many bytes.
pub const PIECE: usize = 1 << 18;

/// A text without any place to cut for this many bytes (a megabyte without whitespace) is cut between two characters; the
/// tokens around such a cut may differ from those of the uncut text, what they decode to does not.
pub const LONGEST_PIECE: usize = 1 << 20;

/// The longest line of jsonl or record of csv, in bytes.
pub const LONGEST_RECORD: u64 = 1 << 26;

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What a text is read by.
const FRAGMENT: u64 = 1 << 16;

/// A document or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text; for jsonl the whole line, whose field is taken out by whoever encodes it, in parallel.
    pub bytes: Vec<u8>,
    /// Number of the document among all that were read.
    pub document: u64,
    /// Whether the document goes on in the next piece.
    pub position: Position,
    /// Where it comes from.
    pub place: Place,
}

/// Which part of its document a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// More pieces of the document follow.
    Inside,
    /// The last piece, or the only one.
    Last,
}

/// Where a piece begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub file: Arc<Path>,
    /// Byte or line.
    pub at: At,
}

/// A place within a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Bytes before it.
    Byte(u64),
    /// Line number, from 1.
    Line(u64),
}

impl Place {
    /// The error of text that is not UTF-8 from its byte `valid` on.
    pub fn invalid_utf8(&self, valid: usize) -> Error {
        Error::new(match self.at {
            At::Byte(start) => format!("{}: invalid UTF-8 at byte {}", self.file.display(), start + valid as u64),
            At::Line(_) => format!("{self}: invalid UTF-8 at byte {valid} of the text"),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Byte(byte) => write!(f, "{}, byte {byte}", self.file.display()),
            At::Line(line) => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

/// The line, from 1, with the byte at `at` of a file's text, for messages; the file is read again for it.
pub fn line_of(path: &Path, at: u64) -> Option<u64> {
    let text = super::compressed::plain(path, Box::new(File::open(path).ok()?)).ok()?;
    let mut line = 1;
    for byte in BufReader::new(text.take(at)).bytes() {
        line += u64::from(byte.ok()? == b'\n');
    }
    Some(line)
}

/// The last place at or before `at` that is not within a character; `text` is UTF-8, cut off anywhere.
pub(super) fn char_floor(text: &[u8], at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (at.saturating_sub(3)..=at).rev().find(|&i| text[i] & 0xC0 != 0x80).unwrap_or(at)
}

/// Counts what is read, for the progress bar.
struct Metered<R> {
    inner: R,
    consumed: Arc<AtomicU64>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.consumed.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The pieces of one file; document numbers are filled in by [`Pieces`].
pub(super) trait FilePieces {
    fn next_piece(&mut self) -> Result<Option<Piece>>;
}

/// Where bytes come from.
pub(super) type Bytes = Box<dyn Read + Send>;

/// The pieces of several files, in order.
pub struct Pieces<'a> {
    waiting: std::vec::IntoIter<(Arc<Path>, Option<Bytes>)>,
    format: &'a Format,
    tokenizer: &'a dyn Tokenizer,
    current: Option<Box<dyn FilePieces + 'a>>,
    document: u64,
    consumed: Arc<AtomicU64>,
}

impl<'a> Pieces<'a> {
    /// Files are opened one after the other, each when its turn comes.
    pub fn of_files(files: &[PathBuf], format: &'a Format, tokenizer: &'a dyn Tokenizer) -> Self {
        Self::new(files.iter().map(|file| (Arc::from(file.as_path()), None)).collect(), format, tokenizer)
    }

    /// The pieces of anything that can be read; `name` stands for it in messages.
    pub fn of_reader(name: &str, reader: Bytes, format: &'a Format, tokenizer: &'a dyn Tokenizer) -> Self {
        Self::new(vec![(Arc::from(Path::new(name)), Some(reader))], format, tokenizer)
    }

    fn new(inputs: Vec<(Arc<Path>, Option<Bytes>)>, format: &'a Format, tokenizer: &'a dyn Tokenizer) -> Self {
        Self { waiting: inputs.into_iter(), format, tokenizer, current: None, document: 0, consumed: Arc::default() }
    }

    /// Bytes read so far, of all files.
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            if let Some(file) = &mut self.current {
                if let Some(mut piece) = file.next_piece()? {
                    piece.document = self.document;
                    self.document += u64::from(piece.position == Position::Last);
                    return Ok(Some(piece));
                }
                self.current = None;
            }
            let Some((file, reader)) = self.waiting.next() else { return Ok(None) };
            self.current = Some(self.open(file, reader)?);
        }
    }

    fn open(&self, file: Arc<Path>, reader: Option<Bytes>) -> Result<Box<dyn FilePieces + 'a>> {
        let reader = match reader {
            Some(reader) => reader,
            None => Box::new(open_file(&file)?),
        };
        // Counted as it lies in the file, which is what a progress bar knows the size of.
        let input = Metered { inner: reader, consumed: self.consumed.clone() };
        let input = super::compressed::plain(&file, Box::new(input))?;
        Ok(match self.format {
            Format::Text(split) => Box::new(Text::new(file, input, *split, self.tokenizer)),
            Format::Jsonl { .. } => Box::new(Lines { file, input: BufReader::with_capacity(1 << 16, input), line: 0 }),
            Format::Csv { columns, header } => super::csv::open(file, input, columns, *header)?,
        })
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_piece().transpose()
    }
}

/// Opens a regular file for reading.
fn open_file(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|error| Error::io("read", path, &error))?;
    let kind = file.metadata().map_err(|error| Error::io("read", path, &error))?;
    match kind.is_dir() {
        true => Err(Error::usage(format!("{} is a folder: name the files in it", path.display()))),
        false => Ok(file),
    }
}

/// Plain text, cut into documents and documents into pieces.
struct Text<'a, R> {
    file: Arc<Path>,
    input: BufReader<R>,
    split: TextSplit,
    tokenizer: &'a dyn Tokenizer,
    /// The text that is not handed out yet.
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    offset: u64,
    /// Whether pieces of the present document have been handed out.
    begun: bool,
    /// Whether the next byte begins a line.
    at_line_start: bool,
}

impl<'a, R: Read> Text<'a, R> {
    fn new(file: Arc<Path>, input: R, split: TextSplit, tokenizer: &'a dyn Tokenizer) -> Self {
        let input = BufReader::with_capacity(FRAGMENT as usize, input);
        Self { file, input, split, tokenizer, buffer: Vec::new(), offset: 0, begun: false, at_line_start: true }
    }

    /// Appends some bytes to the buffer, no more than to the end of a line if lines matter; returns how many.
    fn read_fragment(&mut self) -> Result<usize> {
        let mut some = Read::take(&mut self.input, FRAGMENT);
        match self.split {
            TextSplit::File => some.read_to_end(&mut self.buffer),
            TextSplit::Lines | TextSplit::BlankLines => some.read_until(b'\n', &mut self.buffer),
        }
        .map_err(|error| Error::io("read", &self.file, &error))
    }

    /// Hands out the first `keep` bytes of the buffer and forgets the next `skip`.
    fn take(&mut self, keep: usize, skip: usize, position: Position) -> Piece {
        let rest = self.buffer.split_off(keep + skip);
        let mut bytes = std::mem::replace(&mut self.buffer, rest);
        bytes.truncate(keep);
        let place = Place { file: self.file.clone(), at: At::Byte(self.offset) };
        self.offset += (keep + skip) as u64;
        self.begun = position == Position::Inside;
        Piece { bytes, document: 0, position, place }
    }

    /// Ends the present document before the buffer's last `separator` bytes and the line ending in front of them.
    fn end_document(&mut self, separator: usize) -> Option<Piece> {
        let text = &self.buffer[..self.buffer.len() - separator];
        let keep = match self.split {
            TextSplit::File => text.len(),
            TextSplit::BlankLines if !self.begun && text.trim_ascii().is_empty() => 0,
            TextSplit::Lines | TextSplit::BlankLines => without_line_ending(text).len(),
        };
        if keep == 0 && !self.begun {
            self.offset += self.buffer.len() as u64;
            self.buffer.clear();
            return None;
        }
        Some(self.take(keep, self.buffer.len() - keep, Position::Last))
    }
}

impl<R: Read> FilePieces for Text<'_, R> {
    fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            let n = self.read_fragment()?;
            if n == 0 {
                return Ok(self.end_document(0));
            }
            let fragment = &self.buffer[self.buffer.len() - n..];
            let ends_line = fragment.ends_with(b"\n");
            let blank_line = self.at_line_start && ends_line && fragment.trim_ascii().is_empty();
            self.at_line_start = ends_line;
            let document = match self.split {
                TextSplit::Lines if ends_line => self.end_document(0),
                TextSplit::BlankLines if blank_line => self.end_document(n),
                _ => None,
            };
            if document.is_some() {
                return Ok(document);
            }
            if self.buffer.len() > PIECE {
                // A line ending stays back: it is dropped if the document turns out to end with it.
                let text = &self.buffer[..self.buffer.len() - 2];
                let forced = || (self.buffer.len() >= LONGEST_PIECE).then(|| char_floor(text, text.len() - 1));
                if let Some(at) = self.tokenizer.last_cut(text).or_else(forced) {
                    return Ok(Some(self.take(at, 0, Position::Inside)));
                }
            }
        }
    }
}

/// `line` without `\n` or `\r\n` at its end.
fn without_line_ending(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Every line that is not blank is a piece.
struct Lines<R> {
    file: Arc<Path>,
    input: BufReader<R>,
    line: u64,
}

impl<R: Read> FilePieces for Lines<R> {
    fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            self.line += 1;
            let place = Place { file: self.file.clone(), at: At::Line(self.line) };
            let mut bytes = Vec::new();
            let n = Read::take(&mut self.input, LONGEST_RECORD + 1)
                .read_until(b'\n', &mut bytes)
                .map_err(|error| Error::io("read", &self.file, &error))?;
            // What editors put in front of UTF-8 belongs to no document.
            if self.line == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            match n {
                0 => return Ok(None),
                n if n as u64 > LONGEST_RECORD => {
                    return Err(Error::new(format!("{place}: the line is longer than {} MiB", LONGEST_RECORD >> 20)));
                }
                _ if bytes.trim_ascii().is_empty() => {}
                _ => return Ok(Some(Piece { bytes, document: 0, position: Position::Last, place })),
            }
        }
    }
}

#[cfg(test)]
#[path = "documents_tests.rs"]
mod tests;
