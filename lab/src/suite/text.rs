//! The documents of a set, detokenised, in parts that a tokenizer may take one by one.

use super::{Group, Set};
use crate::text::Format;
use crate::text::documents::{LONGEST_PIECE, PIECE, Piece, Pieces, Place, Position};
use crate::text::encode::{check_utf8, text_of, utf8};
use engine::Result;
use ltm::config;
use ltm::data::Tokenizer;
use std::path::Path;
use std::sync::Arc;

/// A part of a document; only a last one may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its text.
    pub text: Vec<u8>,
    /// Whether the document goes on.
    pub position: Position,
}

/// Records and whole files without text, which are no sequences.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// How many.
    pub documents: u64,
    /// Where the first stands.
    pub first: Option<Place>,
}

impl LeftOut {
    fn add(&mut self, place: Place) {
        self.documents += 1;
        self.first.get_or_insert(place);
    }
}

/// Streams the parts of a set's documents.
pub struct Texts<'a> {
    set: &'a Set,
    pieces: Pieces<'a>,
    tokenizer: &'a dyn Tokenizer,
    /// Says where a text may be cut, for every tokenizer that is to count it.
    cutter: Arc<dyn Tokenizer>,
    /// Text of the present document that is not handed out.
    pending: Vec<u8>,
    /// Whether parts of the present document have been handed out.
    begun: bool,
    /// Whether the present document has a line, and whether its latest line goes on in the next piece.
    open: bool,
    inside_line: bool,
    /// A line that was read and begins the next document.
    next: Option<Vec<u8>>,
    documents: u64,
    left_out: LeftOut,
    /// The files in which there was something, in their order.
    filled: Vec<Arc<Path>>,
}

impl<'a> Texts<'a> {
    /// The documents of `set`, cut where neither `tokenizer` nor GPT-2's would notice.
    ///
    /// # Errors
    /// If the tokenizers cannot be made.
    pub fn new(set: &'a Set, tokenizer: &'a Arc<dyn Tokenizer>) -> Result<Self> {
        let cutter = match tokenizer.name() {
            // Bytes may be cut anywhere, so GPT-2 has the say, where it is there.
            "bytes" => crate::text::tokenizer(config::Tokenizer::Gpt2),
            _ => tokenizer.clone(),
        };
        Ok(Self {
            set,
            pieces: Pieces::of_files(&set.files, &set.format, &**tokenizer),
            tokenizer: &**tokenizer,
            cutter,
            pending: Vec::new(),
            begun: false,
            open: false,
            inside_line: false,
            next: None,
            documents: 0,
            left_out: LeftOut::default(),
            filled: Vec::new(),
        })
    }

    /// Bytes of the files read so far, as they lie there.
    pub fn consumed(&self) -> u64 {
        self.pieces.consumed()
    }

    /// Documents with text that have been handed out whole.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Documents without text so far.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// The next part; `None` at the end, or behind as many documents as the set wants.
    ///
    /// # Errors
    /// Files that cannot be read or are not in the set's format, naming file and line.
    pub fn next_part(&mut self) -> Result<Option<Part>> {
        loop {
            if self.set.documents.is_some_and(|limit| self.documents >= limit) {
                return Ok(None);
            }
            if let Some(text) = self.next.take_if(|_| !self.open) {
                self.pending = text;
                self.open = true;
            }
            let Some((text, position, place)) = self.next_text()? else {
                // All files have ended, and with them what only they end.
                return Ok(if self.open { self.end(None) } else { None });
            };
            match self.set.group {
                Group::Each => {
                    self.pending.extend_from_slice(&text);
                    self.open = true;
                    if position == Position::Last {
                        match self.end(Some(place)) {
                            None => continue,
                            part => return Ok(part),
                        }
                    }
                }
                Group::Articles if self.open && !self.inside_line && is_title(&text) => {
                    self.next = Some(text);
                    match self.end(None) {
                        None => continue,
                        part => return Ok(part),
                    }
                }
                Group::Articles | Group::All => {
                    if self.open && !self.inside_line {
                        self.pending.push(b'\n');
                    }
                    self.pending.extend_from_slice(&text);
                    (self.open, self.inside_line) = (true, position == Position::Inside);
                }
            }
            // Where there is nowhere to cut for so long, what has been read ends at a character.
            let forced = || (self.pending.len() >= LONGEST_PIECE).then_some(self.pending.len());
            if self.pending.len() > PIECE
                && let Some(at) = self.cutter.last_cut(&self.pending).or_else(forced)
            {
                let rest = self.pending.split_off(at);
                let text = std::mem::replace(&mut self.pending, rest);
                self.begun = true;
                return Ok(Some(Part { text, position: Position::Inside }));
            }
        }
    }

    /// Ends the present document; one without text leaves no part.
    fn end(&mut self, place: Option<Place>) -> Option<Part> {
        let mut text = std::mem::take(&mut self.pending);
        let begun = std::mem::take(&mut self.begun);
        self.open = false;
        if self.set.group != Group::Each {
            text.truncate(text.trim_ascii_end().len());
        }
        if !begun && text.trim_ascii().is_empty() {
            // Blank lines of a text are no documents; a record without text is one that somebody expects to be there.
            if let Some(place) = place.filter(|_| self.has_records()) {
                self.left_out.add(place);
            }
            return None;
        }
        self.documents += 1;
        Some(Part { text, position: Position::Last })
    }

    /// The next piece, detokenised.
    fn next_text(&mut self) -> Result<Option<(Vec<u8>, Position, Place)>> {
        let Some(piece) = self.pieces.next().transpose()? else {
            for file in self.set.files.iter().filter(|file| self.filled.iter().all(|filled| **filled != ***file)) {
                self.left_out.add(Place { file: file.as_path().into(), line: 1 });
            }
            self.filled = self.set.files.iter().map(|file| file.as_path().into()).collect();
            return Ok(None);
        };
        let text = self.text(&piece)?;
        // A record without text is left out by itself.
        let something = self.has_records() || !text.trim_ascii().is_empty();
        if something && self.filled.last() != Some(&piece.place.file) {
            self.filled.push(piece.place.file.clone());
        }
        Ok(Some((text, piece.position, piece.place)))
    }

    fn text(&self, piece: &Piece) -> Result<Vec<u8>> {
        let text = text_of(piece, &self.set.format)?;
        let detokenise = self.set.detokenise;
        if detokenise == super::Detokenise::None {
            check_utf8(&text, piece, self.tokenizer)?;
            return Ok(text.into_owned());
        }
        let text = utf8(&text, piece, format_args!("detokenise {} needs UTF-8", detokenise.name()))?;
        Ok(detokenise.text(text).into_bytes())
    }

    /// Whether the files are made of records, each of which somebody expects to be there, and not of plain text.
    fn has_records(&self) -> bool {
        !matches!(self.set.format, Format::Text(_))
    }
}

/// Whether a line is a heading of the first level.
fn is_title(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line.len() > 4
        && line.starts_with(b"= ")
        && line.ends_with(b" =")
        && line[2] != b'='
        && line[line.len() - 3] != b'='
}
