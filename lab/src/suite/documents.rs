//! The documents of a set, detokenised, as tokens.

use super::{Detokenise, Set};
use crate::text::documents::{Piece, Pieces, Place};
use crate::text::encode::{text_of, utf8};
use crate::text::formats::Format;
use engine::{Error, Result};
use ltm::config::Chunking;
use ltm::data::{DataFile, Dataset, Sequences, Source, Tail, Tokenizer};
use std::sync::Arc;

/// A set as sequences. Every token of its documents, their end tokens included, is a target exactly once.
pub struct Read {
    /// The sequences.
    pub source: Arc<dyn Source>,
    /// Documents with text.
    pub documents: u64,
    /// GPT-2 tokens, one more for the end of each document; `None` if nobody counted them.
    pub gpt2_tokens: Option<u64>,
    /// Records without text.
    pub left_out: u64,
    /// Where the first of these stands.
    pub first_left_out: Option<Place>,
}

/// Reads a set for sequences of `sequence` tokens; `gpt2` counts the tokens that published figures are about. Calls
/// `progress` with the bytes of the files read so far, whose error ends it.
///
/// # Errors
/// Files that cannot be read or are not in the set's format, texts that hold nothing or less than a window, and those of
/// `progress`.
pub fn read(
    set: &Set,
    tokenizer: &Arc<dyn Tokenizer>,
    gpt2: Option<&dyn Tokenizer>,
    sequence: usize,
    mut progress: impl FnMut(u64) -> Result<()>,
) -> Result<Read> {
    let mut reader = Reader {
        set,
        tokenizer: &**tokenizer,
        gpt2,
        text: None,
        is_inside_line: false,
        tokens: Vec::new(),
        documents: 0,
        gpt2_tokens: 0,
        left_out: 0,
        first_left_out: None,
    };
    // Bytes may be cut anywhere, so GPT-2 has the say, where it counts too.
    let mut pieces = Pieces::of_files(&set.files, &set.format, gpt2.unwrap_or(&**tokenizer));
    while set.documents.is_none_or(|limit| reader.documents < limit) {
        let Some(piece) = pieces.next().transpose()? else {
            reader.end(None)?;
            break;
        };
        reader.add(&piece)?;
        progress(pieces.consumed())?;
    }
    let Reader { tokens, documents, gpt2_tokens, left_out, first_left_out, .. } = reader;
    let name = set.files[0].display();
    if tokens.is_empty() {
        return Err(Error::new(format!("{name}: there is no document with text")));
    }
    if set.chunking == Chunking::Windows && tokens.len() < sequence {
        let without = first_left_out
            .as_ref()
            .map_or(String::new(), |first| format!("; {left_out} records without text, the first at {first}"));
        return Err(Error::new(format!(
            "{name}: its {} tokens make no complete window of {sequence}: chunking = \"documents\" needs none{without}",
            tokens.len()
        )));
    }
    let data = Dataset::from_tokens(DataFile { path: set.files[0].clone(), ..DataFile::default() }, tokens, tokenizer)?;
    let source = Arc::new(Sequences::new(vec![data], set.chunking, sequence, Tail::Pad)?);
    let gpt2_tokens = gpt2.map(|_| gpt2_tokens + documents);
    Ok(Read { source, documents, gpt2_tokens, left_out, first_left_out })
}

struct Reader<'a> {
    set: &'a Set,
    tokenizer: &'a dyn Tokenizer,
    gpt2: Option<&'a dyn Tokenizer>,
    /// Text of the present document, `None` if it has not begun, and whether its latest line goes on in the next piece.
    text: Option<Vec<u8>>,
    is_inside_line: bool,
    tokens: Vec<u16>,
    documents: u64,
    gpt2_tokens: u64,
    left_out: u64,
    first_left_out: Option<Place>,
}

impl Reader<'_> {
    /// Adds a piece to the present document, or begins the next one with it.
    fn add(&mut self, piece: &Piece) -> Result<()> {
        let text = text_of(piece, &self.set.format, self.tokenizer)?;
        let how = self.set.detokenise;
        if how != Detokenise::None {
            utf8(&text, piece, format_args!("detokenise {} needs UTF-8", how.name()))?;
        }
        if self.set.by_articles && !self.is_inside_line {
            if is_title(&text) {
                self.end(None)?;
            }
            self.text.iter_mut().for_each(|text| text.push(b'\n'));
        }
        self.text.get_or_insert_default().extend_from_slice(&text);
        self.is_inside_line = !piece.is_last;
        if piece.is_last && !self.set.by_articles { self.end(Some(&piece.place)) } else { Ok(()) }
    }

    /// Ends the present document; one without text is none, and one that is a record is counted.
    fn end(&mut self, record: Option<&Place>) -> Result<()> {
        let Some(mut text) = self.text.take() else { return Ok(()) };
        if self.set.detokenise != Detokenise::None {
            text = self.set.detokenise.text(&String::from_utf8_lossy(&text)).into_bytes();
        }
        if self.set.by_articles {
            text.truncate(text.trim_ascii_end().len());
        }
        if text.trim_ascii().is_empty() {
            if let Some(place) = record.filter(|_| !matches!(self.set.format, Format::Text(_))) {
                self.left_out += 1;
                self.first_left_out.get_or_insert_with(|| place.clone());
            }
            return Ok(());
        }
        self.documents += 1;
        self.tokenizer.encode(&text, &mut self.tokens).map_err(|error| error.at(self.set.files[0].display()))?;
        self.tokens.push(self.tokenizer.end());
        if let Some(gpt2) = self.gpt2 {
            let mut ids = Vec::new();
            gpt2.encode(String::from_utf8_lossy(&text).as_bytes(), &mut ids)?;
            self.gpt2_tokens += ids.len() as u64;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::sets;
    use super::*;
    use crate::text;
    use ltm::config;
    use std::path::Path;

    /// What is read of a set `[own]` in the file `f` by bytes, and the documents.
    fn read(folder: &Path, keys: &str, content: impl AsRef<[u8]>) -> Result<(Read, Vec<String>)> {
        std::fs::write(folder.join("f"), content).unwrap();
        std::fs::write(folder.join("suite.toml"), keys).unwrap();
        let set = &sets(&folder.join("suite.toml"), None)?[0];
        let tokenizer = text::tokenizer(config::Tokenizer::Bytes);
        let read = super::read(set, &tokenizer, Some(&*tokenizer), 16, |_| Ok(()))?;
        let mut documents = vec![Vec::new()];
        let (mut tokens, mut targets) = (vec![0; 16], vec![0; 16]);
        for index in 0..read.source.samples().unwrap() {
            let info = read.source.fill(index, &mut tokens, &mut targets);
            for &target in &targets[..info.scored as usize] {
                match u8::try_from(target) {
                    Ok(byte) => documents.last_mut().unwrap().push(byte),
                    Err(_) => documents.push(Vec::new()),
                }
            }
        }
        documents.pop();
        Ok((read, documents.into_iter().map(|text| String::from_utf8(text).unwrap()).collect()))
    }

    #[test]
    fn pieces_become_documents() {
        let folder = tempfile::tempdir().unwrap();
        let own = "[own]\npath = 'f'\nformat = 'text'\nchunking = 'documents'\n";
        let long = "a word and another, ".repeat(30_000);
        let lines = format!("{long}\n\nshort\n");
        let wiki = " \n = One = \n \n It was @-@ so . \n \n = = Part = = \n more \n \n = Two = \n \n end \n";
        for (keys, content, expected) in [
            (format!("{own}split = 'lines'"), lines.as_str(), vec![long.as_str(), "short"]),
            (format!("{own}split = 'file'\ndetokenise = 'ptb'"), " it is \n\n n't N \n", vec!["it is\n\nn't 1\n"]),
            (format!("{own}split = 'lines'\ndocuments = 1"), "one\ntwo\n", vec!["one"]),
            (
                "[wikitext]\npath = 'f'\nchunking = 'documents'".into(),
                wiki,
                vec!["= One =\n\nIt was-so.\n\n== Part ==\nmore", "= Two =\n\nend"],
            ),
            (
                "[wikitext]\npath = 'f'\nchunking = 'documents'\ndocuments = 1".into(),
                wiki,
                vec!["= One =\n\nIt was-so.\n\n== Part ==\nmore"],
            ),
        ] {
            let (read, documents) = read(folder.path(), &keys, content).unwrap();
            assert!(documents == expected, "{keys}: {documents:?}");
            assert_eq!(read.documents, expected.len() as u64);
        }
    }

    #[test]
    fn records_without_text_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let text = "{\"text\": \"some text\"}\n{\"text\": \"\"}\n{\"text\": \"more\"}\n{\"text\": \" \"}\n";
        let keys = "[own]\npath = 'f'\nformat = 'jsonl'\nfield = 'text'\nchunking = 'documents'\n";
        let (read, documents) = read(folder.path(), keys, text).unwrap();
        assert_eq!(documents, ["some text", "more"]);
        assert_eq!((read.documents, read.left_out), (2, 2));
        assert!(read.first_left_out.unwrap().to_string().ends_with("f:2"));
        // Nine and four bytes, and two ends.
        assert_eq!(read.gpt2_tokens, Some(15));
    }

    #[test]
    fn what_is_wrong_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let own = "[own]\npath = 'f'\nformat = 'text'\n";
        let jsonl = "[own]\npath = 'f'\nformat = 'jsonl'\nfield = 'text'\n";
        for (keys, content, parts) in [
            (own.to_string(), b"short" as &[u8], ["f: its 6 tokens make no complete window of 16", "documents"]),
            (
                jsonl.into(),
                b"{\"text\": \"\"}\n{\"text\": \"short\"}\n",
                ["6 tokens make", "1 records without text, the first at"],
            ),
            (format!("{own}split = 'lines'"), b"\n \n", ["f: ", "no document with text"]),
            (
                format!("{own}detokenise = 'ptb'"),
                b"one two\nthree\nfo\xFFur\n",
                ["f:3: invalid UTF-8", "and detokenise ptb"],
            ),
        ] {
            let error = read(folder.path(), &keys, content).err().unwrap().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
