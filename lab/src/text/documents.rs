//! Streams documents from files in pieces, so that memory does not depend on the size of an input or a document: a long
//! text comes in several pieces, cut where the tokenizer allows it without a change of tokens.
//!
//! Files may be compressed by gzip or Zstandard. Only single jsonl and csv records must fit into memory; they may have
//! [`LONGEST_RECORD`] bytes.

use super::input::{Input, plain};
use csv::ByteRecord;
use engine::{Error, Result, file};
use ltm::data::Tokenizer;
use serde::Deserialize;
use std::io::{self, BufRead, BufReader, Chain, Read, Take};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, iter};

/// A text is cut at the first opportunity beyond this many bytes.
pub const PIECE: usize = 1 << 18;

/// A text without any place to cut for this many bytes (a megabyte without whitespace) is cut between two characters;
/// tokens around such a cut may differ from those of the uncut text, but they decode to the same text.
pub const LONGEST_PIECE: usize = 1 << 20;

/// The longest line of jsonl or record of csv, in bytes.
pub const LONGEST_RECORD: u64 = 1 << 26;

/// Most bytes of a text that are read at once.
const FRAGMENT: u64 = 1 << 16;

/// The format of documents in an input file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// Plain text.
    Text(TextSplit),
    /// One JSON object per line; the document is the string `field`. Blank lines are skipped.
    Jsonl {
        /// Key of the document.
        field: String,
    },
    /// Comma-separated values with quotes as in RFC 4180, one record per document; the document is one column, or
    /// several joined by spaces.
    Csv {
        /// Which columns.
        columns: Vec<Column>,
        /// Whether the first record names the columns instead of being a document.
        header: bool,
    },
}

/// The extent of a document in plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextSplit {
    /// The whole file, byte for byte, without a byte order mark.
    File,
    /// Each line, without its line ending; empty lines are skipped.
    Lines,
    /// Each block between blank lines (empty or only spaces), without the last line ending.
    BlankLines,
    /// Articles: a document begins at a first-level heading ` = Title = `, as in WikiText. They are read as
    /// [`Lines`](Self::Lines); the caller that counts documents joins them.
    Articles,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a column's number, from 1, or its name")]
pub enum Column {
    /// By number, counted from one.
    Number(usize),
    /// By the name in the header.
    Name(String),
}

impl Format {
    /// Tables with these columns; named columns need a header.
    ///
    /// # Errors
    /// If a column number is 0.
    pub fn csv(columns: Vec<Column>, header: bool) -> Result<Self> {
        if columns.contains(&Column::Number(0)) {
            return Err(Error::usage("column 0: columns are counted from 1"));
        }
        let is_named = columns.iter().any(|column| matches!(column, Column::Name(_)));
        Ok(Self::Csv { columns, header: header || is_named })
    }
}

/// A document or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text; for jsonl the whole line, whose field is extracted during encoding, in parallel.
    pub bytes: Vec<u8>,
    /// Number of the document among all documents.
    pub document: u64,
    /// Whether it ends its document; otherwise more pieces follow.
    pub is_last: bool,
    /// Its origin.
    pub place: Place,
    /// The error of a record that does not match earlier records.
    pub bad: Option<Error>,
}

/// The start of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// The last character boundary at or before `at`; `text` is UTF-8, possibly truncated.
pub(super) fn char_floor(text: &[u8], at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (at.saturating_sub(3)..=at).rev().find(|&i| text[i] & 0xC0 != 0x80).unwrap_or(at)
}

/// Line ends in `text`.
pub(super) fn lines_in(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
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

/// The pieces of several files, in order.
pub struct Pieces<'a> {
    waiting: std::slice::Iter<'a, PathBuf>,
    pub(super) format: &'a Format,
    pub(super) tokenizer: &'a dyn Tokenizer,
    /// The pieces of the current file, whose documents have no numbers yet.
    current: Box<dyn Iterator<Item = Result<Piece>> + 'a>,
    document: u64,
    /// The number of the current file's first document, if there is such a file.
    first: Option<u64>,
    empty_files: u64,
    consumed: Arc<AtomicU64>,
}

impl<'a> Pieces<'a> {
    /// Files are opened one after the other, when needed.
    pub fn of_files(files: &'a [PathBuf], format: &'a Format, tokenizer: &'a dyn Tokenizer) -> Self {
        let (waiting, current) = (files.iter(), Box::new(iter::empty()));
        let (first, empty_files) = (None, 0);
        Self { waiting, format, tokenizer, current, document: 0, first, empty_files, consumed: Arc::default() }
    }

    /// The pieces of any reader; `name` is its name in messages.
    ///
    /// # Errors
    /// If its beginning cannot be read.
    pub fn of_reader(
        name: impl AsRef<Path>,
        reader: impl Read + Send + 'static,
        format: &'a Format,
        tokenizer: &'a dyn Tokenizer,
    ) -> Result<Self> {
        let mut pieces = Self::of_files(&[], format, tokenizer);
        pieces.current = pieces.open(name.as_ref(), Box::new(reader))?;
        pieces.first = Some(0);
        Ok(pieces)
    }

    /// Bytes read so far, of all files.
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    /// Number of files without a document.
    pub fn empty_files(&self) -> u64 {
        self.empty_files
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            if let Some(mut piece) = self.current.next().transpose()? {
                piece.document = self.document;
                self.document += u64::from(piece.is_last);
                return Ok(Some(piece));
            }
            self.empty_files += u64::from(self.first.take() == Some(self.document));
            let Some(path) = self.waiting.next() else { return Ok(None) };
            self.current = self.open(path, Box::new(file::open(path)?))?;
            self.first = Some(self.document);
        }
    }

    fn open(&self, file: &Path, reader: Input) -> Result<Box<dyn Iterator<Item = Result<Piece>> + 'a>> {
        // Counts compressed bytes, because the progress bar knows only the file size.
        let input = plain(file, Box::new(Metered { inner: reader, consumed: self.consumed.clone() }))?;
        let file = Arc::from(file);
        Ok(match self.format {
            Format::Text(_) | Format::Jsonl { .. } => {
                let mut text = Text::new(file, input, self.format, self.tokenizer);
                Box::new(iter::from_fn(move || text.next_piece().transpose()))
            }
            Format::Csv { columns, header } => {
                let mut table = Table::open(file, input, columns, *header)?;
                Box::new(iter::from_fn(move || table.next_piece().transpose()))
            }
        })
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_piece().transpose()
    }
}

/// Plain text or lines of jsonl, cut into documents and documents into pieces.
struct Text<'a> {
    file: Arc<Path>,
    input: BufReader<Input>,
    split: TextSplit,
    /// Whether every document is a line of jsonl, which is not cut.
    jsonl: bool,
    tokenizer: &'a dyn Tokenizer,
    /// The text not yet returned.
    buffer: Vec<u8>,
    /// The line in which the buffer begins.
    line: u64,
    /// Whether pieces of the current document have been returned.
    begun: bool,
    /// Whether the next byte begins a line.
    at_line_start: bool,
}

impl<'a> Text<'a> {
    fn new(file: Arc<Path>, input: Input, format: &Format, tokenizer: &'a dyn Tokenizer) -> Self {
        let input = BufReader::with_capacity(FRAGMENT as usize, input);
        let (split, jsonl) = if let Format::Text(split) = format { (*split, false) } else { (TextSplit::Lines, true) };
        Self { file, input, split, jsonl, tokenizer, buffer: Vec::new(), line: 1, begun: false, at_line_start: true }
    }

    /// Appends some bytes to the buffer, at most to the end of a line if lines matter; returns their number.
    fn read_fragment(&mut self) -> Result<usize> {
        let mut some = self.input.by_ref().take(FRAGMENT);
        match self.split {
            TextSplit::File => some.read_to_end(&mut self.buffer),
            _ => some.read_until(b'\n', &mut self.buffer),
        }
        .map_err(|error| Error::io("read", &self.file, &error))
    }

    fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line }
    }

    /// Returns the first `keep` bytes of the buffer and drops the next `skip`.
    fn take(&mut self, keep: usize, skip: usize, is_last: bool) -> Piece {
        let place = self.place();
        let rest = self.buffer.split_off(keep + skip);
        let mut bytes = std::mem::replace(&mut self.buffer, rest);
        self.line += lines_in(&bytes);
        bytes.truncate(keep);
        self.begun = !is_last;
        Piece { bytes, document: 0, is_last, place, bad: None }
    }

    /// Ends the current document before the buffer's last `separator` bytes and the line ending before them.
    fn end_document(&mut self, separator: usize) -> Option<Piece> {
        let text = &self.buffer[..self.buffer.len() - separator];
        let blank_is_nothing = self.jsonl || self.split == TextSplit::BlankLines;
        let keep = match self.split {
            _ if blank_is_nothing && !self.begun && text.trim_ascii().is_empty() => 0,
            TextSplit::File => text.len(),
            _ => without_line_ending(text).len(),
        };
        let is_piece = keep > 0 || self.begun;
        let piece = self.take(keep, self.buffer.len() - keep, true);
        is_piece.then_some(piece)
    }

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
                TextSplit::Lines | TextSplit::Articles if ends_line => self.end_document(0),
                TextSplit::BlankLines if blank_line => self.end_document(n),
                _ => None,
            };
            if document.is_some() {
                return Ok(document);
            }
            if self.jsonl && self.buffer.len() as u64 > LONGEST_RECORD {
                let place = self.place();
                return Err(Error::new(format!("{place}: the line is longer than {} MiB", LONGEST_RECORD >> 20)));
            }
            if !self.jsonl && self.buffer.len() > PIECE {
                // A line ending is kept back, and dropped if the document ends with it.
                let text = &self.buffer[..self.buffer.len() - 2];
                let forced = || (self.buffer.len() >= LONGEST_PIECE).then(|| char_floor(text, text.len() - 1));
                if let Some(at) = self.tokenizer.last_cut(text).or_else(forced) {
                    return Ok(Some(self.take(at, 0, false)));
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

/// A table's text followed by an empty line, which is not a record. A record that reaches the end includes this line,
/// so it has an open quote.
struct Watched {
    text: Chain<Input, &'static [u8]>,
    /// The latest piece that was read (empty at the end), and the number of bytes before it. A new piece is read only
    /// when this one is used up, so every record ends in it.
    latest: Vec<u8>,
    before: u64,
}

impl Read for Watched {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.text.read(out)?;
        self.before += self.latest.len() as u64;
        self.latest.clear();
        self.latest.extend_from_slice(&out[..n]);
        Ok(n)
    }
}

/// The records of comma-separated values.
struct Table {
    file: Arc<Path>,
    /// An unclosed quote would read the whole file into memory, so every record has a limit.
    input: csv::Reader<Take<Watched>>,
    /// The columns of the document, joined by spaces.
    columns: Vec<usize>,
}

impl Table {
    fn open(file: Arc<Path>, input: Input, columns: &[Column], header: bool) -> Result<Self> {
        let input = Watched { text: input.chain(b"\n\n"), latest: Vec::new(), before: 0 };
        let mut input = csv::ReaderBuilder::new().has_headers(header).from_reader(input.take(LONGEST_RECORD));
        let mut place = |column: &Column| match column {
            Column::Number(number) => Ok(number - 1),
            Column::Name(name) => {
                let names = input.byte_headers().map_err(|error| in_table(&file, &error))?;
                names.iter().position(|found| found == name.as_bytes()).ok_or_else(|| {
                    let names = names.iter().map(|name| String::from_utf8_lossy(name).escape_debug().to_string());
                    let names: Vec<_> = names.collect();
                    Error::new(format!("{}:1: no column {name:?}; there are: {}", file.display(), names.join(", ")))
                })
            }
        };
        let columns = columns.iter().map(&mut place).collect::<Result<_>>();
        // An empty file is not an error.
        let is_empty = header && input.byte_headers().is_ok_and(ByteRecord::is_empty);
        if header && !is_empty && input.get_ref().get_ref().latest.is_empty() {
            return Err(open_quote(&Place { file, line: 1 }));
        }
        let columns = if is_empty { Vec::new() } else { columns? };
        Ok(Self { file, input, columns })
    }

    /// The start of the latest record. The reader's own count is the end of the previous record, which an empty line or
    /// a Windows line ending may follow.
    fn place(&self, record: &ByteRecord) -> Place {
        let (end, input) = (self.input.position(), self.input.get_ref().get_ref());
        let last = (end.byte() - input.before).checked_sub(1).and_then(|at| input.latest.get(at as usize));
        let line = end.line() - lines_in(record.as_slice()) - u64::from(last == Some(&b'\n'));
        Place { file: self.file.clone(), line }
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        let mut record = ByteRecord::new();
        let read = self.input.read_byte_record(&mut record);
        let place = self.place(&record);
        if self.input.get_ref().limit() == 0 {
            let most = LONGEST_RECORD >> 20;
            return Err(Error::new(format!("{place}: the record is longer than {most} MiB: is a quote open?")));
        }
        self.input.get_mut().set_limit(LONGEST_RECORD);
        let field = |&column: &usize| {
            record.get(column).ok_or_else(|| {
                let (number, there) = (column + 1, record.len());
                Error::new(format!("{place}: there is no column {number}, the record has {there}"))
            })
        };
        let fields = match read.as_ref().map_err(csv::Error::kind) {
            Ok(false) => return Ok(None),
            Ok(true) | Err(csv::ErrorKind::UnequalLengths { .. })
                if self.input.get_ref().get_ref().latest.is_empty() =>
            {
                return Err(open_quote(&place));
            }
            Ok(true) => self.columns.iter().map(field).collect::<Result<Vec<_>>>(),
            Err(csv::ErrorKind::UnequalLengths { expected_len: first, len, .. }) => {
                Err(Error::new(format!("{place}: the record has {len} fields, the first has {first}")))
            }
            Err(_) => return read.map(|_| None).map_err(|error| in_table(&self.file, &error)),
        };
        let (bytes, bad) = fields.map_or_else(|error| (Vec::new(), Some(error)), |fields| (fields.join(&b' '), None));
        Ok(Some(Piece { bytes, document: 0, is_last: true, place, bad }))
    }
}

fn open_quote(place: &Place) -> Error {
    Error::new(format!("{place}: a quote is opened and never closed"))
}

fn in_table(file: &Path, error: &csv::Error) -> Error {
    Error::new(format!("cannot read {}: {error}", file.display()))
}

#[cfg(test)]
mod tests;
