//! The detokenised documents of a set, as tokens.

use super::{Detokenise, Set};
use crate::text::documents::{Format, Piece, Pieces, Place, TextSplit};
use crate::text::encode::{text_of, utf8};
use engine::{Error, Result};
use ltm::data::{DataFile, Dataset, Sequences, Source, Tail, Tokenizer};
use std::mem;
use std::sync::Arc;

/// Counts of a set.
#[derive(Default)]
pub struct Counts {
    /// Documents with text.
    pub documents: u64,
    /// GPT-2 tokens, with one for the end of each document; 0 if not counted.
    pub gpt2_tokens: u64,
    /// Records without text.
    pub left_out: u64,
    /// The place of the first of these.
    pub first_left_out: Option<Place>,
}

/// Reads a set as sequences of `sequence` tokens; every token of its documents, their end tokens included, is a target
/// exactly once. `gpt2` counts the tokens of published figures. Calls `progress` with the bytes of the files read so
/// far; its error stops the reading.
///
/// # Errors
/// If files cannot be read, are not in the set's format, or have no text, and those of `progress`.
pub fn read(
    set: &Set,
    tokenizer: &Arc<dyn Tokenizer>,
    gpt2: Option<&dyn Tokenizer>,
    sequence: usize,
    mut progress: impl FnMut(u64) -> Result<()>,
) -> Result<(Arc<dyn Source>, Counts)> {
    let (text, tokens, counts) = (Vec::new(), Vec::new(), Counts::default());
    let mut reader = Reader { set, tokenizer: &**tokenizer, gpt2, text, is_inside_line: false, tokens, counts };
    // Bytes may be cut anywhere, so if GPT-2 tokens are counted, its tokenizer chooses the cuts.
    let mut pieces = Pieces::of_files(&set.files, &set.format, gpt2.unwrap_or(&**tokenizer));
    while set.documents.is_none_or(|limit| reader.counts.documents < limit) {
        let Some(piece) = pieces.next().transpose()? else {
            reader.end(None)?;
            break;
        };
        reader.add(&piece)?;
        progress(pieces.consumed())?;
    }
    let Reader { tokens, counts, .. } = reader;
    if tokens.is_empty() {
        return Err(Error::new("its files have no document with text"));
    }
    let file = DataFile { path: set.name.as_str().into(), ..DataFile::default() };
    let data = Dataset::from_tokens(file, tokens, tokenizer)?;
    Ok((Arc::new(Sequences::new(vec![data], set.chunking, sequence, Tail::Pad)?), counts))
}

struct Reader<'a> {
    set: &'a Set,
    tokenizer: &'a dyn Tokenizer,
    gpt2: Option<&'a dyn Tokenizer>,
    /// Text of the current document, and whether its last line continues in the next piece.
    text: Vec<u8>,
    is_inside_line: bool,
    tokens: Vec<u16>,
    counts: Counts,
}

impl Reader<'_> {
    /// Adds a piece to the current document, or starts the next one with it.
    fn add(&mut self, piece: &Piece) -> Result<()> {
        let text = text_of(piece, &self.set.format, self.tokenizer)?;
        let how = self.set.detokenise;
        if how != Detokenise::None {
            utf8(&text, piece, format_args!("detokenise {how} needs UTF-8"))?;
        }
        let by_articles = self.by_articles();
        if by_articles && !self.is_inside_line {
            if is_title(&text) {
                self.end(None)?;
            } else if !self.text.is_empty() {
                self.text.push(b'\n');
            }
        }
        self.text.extend_from_slice(&text);
        self.is_inside_line = !piece.is_last;
        if self.is_inside_line || by_articles { Ok(()) } else { self.end(Some(&piece.place)) }
    }

    fn by_articles(&self) -> bool {
        matches!(self.set.format, Format::Text(TextSplit::Articles))
    }

    /// Ends the current document. A document without text is skipped, and counted if it is a record.
    fn end(&mut self, record: Option<&Place>) -> Result<()> {
        let mut text = mem::take(&mut self.text);
        if self.set.detokenise != Detokenise::None {
            text = self.set.detokenise.text(&String::from_utf8_lossy(&text)).into_bytes();
        }
        if self.by_articles() {
            text.truncate(text.trim_ascii_end().len());
        }
        if text.trim_ascii().is_empty() {
            if let Some(place) = record.filter(|_| !matches!(self.set.format, Format::Text(_))) {
                self.counts.left_out += 1;
                self.counts.first_left_out.get_or_insert_with(|| place.clone());
            }
            return Ok(());
        }
        self.counts.documents += 1;
        self.tokenizer.encode(&text, &mut self.tokens)?;
        self.tokens.push(self.tokenizer.end());
        if let Some(gpt2) = self.gpt2 {
            let mut ids = Vec::new();
            gpt2.encode(String::from_utf8_lossy(&text).as_bytes(), &mut ids)?;
            self.counts.gpt2_tokens += ids.len() as u64 + 1;
        }
        Ok(())
    }
}

/// Whether a line is a heading of the first level.
fn is_title(line: &[u8]) -> bool {
    let inner = line.trim_ascii().strip_prefix(b"= ").and_then(|line| line.strip_suffix(b" ="));
    inner.is_some_and(|title| !title.is_empty() && !title.starts_with(b"=") && !title.ends_with(b"="))
}

#[cfg(test)]
mod tests {
    use super::super::sets;
    use super::*;
    use crate::text;
    use ltm::config;
    use std::path::Path;

    /// The documents and counts of a set `[own]` in the file `f`, with byte tokens.
    fn read(folder: &Path, keys: &str, content: &str) -> (Vec<String>, Counts) {
        std::fs::write(folder.join("f"), content).unwrap();
        std::fs::write(folder.join("suite.toml"), keys).unwrap();
        let set = &sets(&folder.join("suite.toml"), None).unwrap()[0];
        let tokenizer = text::tokenizer(config::Tokenizer::Bytes);
        let (source, counts) = super::read(set, &tokenizer, Some(&*tokenizer), 16, |_| Ok(())).unwrap();
        let mut documents = vec![Vec::new()];
        let (mut tokens, mut targets) = (vec![0; 16], vec![0; 16]);
        for index in 0..source.samples().unwrap() {
            let info = source.fill(index, &mut tokens, &mut targets).unwrap();
            for &target in &targets[..info.scored as usize] {
                match u8::try_from(target) {
                    Ok(byte) => documents.last_mut().unwrap().push(byte),
                    Err(_) => documents.push(Vec::new()),
                }
            }
        }
        documents.pop();
        (documents.into_iter().map(|text| String::from_utf8(text).unwrap()).collect(), counts)
    }

    #[test]
    fn pieces_become_documents() {
        let folder = tempfile::tempdir().unwrap();
        let own = "[own]\npath = 'f'\nchunking = 'documents'\nformat = ";
        let wikitext = "[wikitext]\npath = 'f'\nchunking = 'documents'\n";
        let long = "a word and another, ".repeat(30_000);
        let lines = format!("{long}\n\nshort\n");
        let wiki = " \n = One = \n \n It was @-@ so . \n \n = = Part = = \n more \n \n = Two = \n \n end \n";
        let one = "= One =\n\nIt was-so.\n\n== Part ==\nmore";
        let records = "{\"t\": \"some text\"}\n{\"t\": \"\"}\n{\"t\": \"more\"}\n{\"t\": \" \"}\n";
        for (keys, content, expected, left_out) in [
            (format!("{own}'text'\nsplit = 'lines'"), &*lines, vec![&*long, "short"], 0),
            (format!("{own}'text'\ndetokenise = 'ptb'"), " it is \n\n n't N \n", vec!["it is\n\nn't 1\n"], 0),
            (format!("{own}'text'\nsplit = 'lines'\ndocuments = 1"), "one\ntwo\n", vec!["one"], 0),
            (wikitext.into(), wiki, vec![one, "= Two =\n\nend"], 0),
            (format!("{wikitext}documents = 1"), wiki, vec![one], 0),
            (format!("{own}'jsonl'\nfield = 't'"), records, vec!["some text", "more"], 2),
        ] {
            let (documents, counts) = read(folder.path(), &keys, content);
            assert!(documents == expected, "{keys}: {documents:?}");
            assert_eq!((counts.documents, counts.left_out), (expected.len() as u64, left_out));
            // GPT-2 is the bytes' tokenizer here.
            assert_eq!(counts.gpt2_tokens, expected.iter().map(|text| text.len() as u64 + 1).sum::<u64>());
        }
    }
}
