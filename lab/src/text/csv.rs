//! Columns of comma-separated values.

use super::documents::{Bytes, FilePieces};
use super::formats::{Column, Header};
use engine::{Error, Result};
use std::path::Path;
use std::sync::Arc;

pub(super) use with_parser::open;

mod with_parser {
    use super::super::documents::{At, LONGEST_RECORD, Piece, Place, Position};
    use super::*;
    use csv::ByteRecord;
    use std::fmt;
    use std::io::{self, Read};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Refuses to go on when a record does not end: a quote that is never closed would read the whole file into memory. And
    /// refuses to end inside quotes, which the parser takes for the end of the last record.
    struct Bounded {
        input: Bytes,
        since_record: Arc<AtomicU64>,
        quotes: Quotes,
    }

    /// What is wrong at a line.
    #[derive(Debug)]
    struct AtLine(u64, String);

    impl fmt::Display for AtLine {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "line {}: {}", self.0, self.1)
        }
    }

    impl std::error::Error for AtLine {}

    /// Follows quotes as the parser does.
    #[derive(Default)]
    struct Quotes {
        within: Within,
        /// Lines ended so far, and when the latest quote was opened.
        line: u64,
        opened: u64,
    }

    #[derive(Clone, Copy, Default, PartialEq, Eq)]
    enum Within {
        /// Where a field begins.
        #[default]
        Start,
        /// A field without quotes, or what follows them.
        Plain,
        Quoted,
        /// Behind a quote in quotes: it ends them, unless another follows.
        Quote,
    }

    impl Quotes {
        fn read(&mut self, bytes: &[u8]) {
            for &byte in bytes {
                self.line += u64::from(byte == b'\n');
                self.within = match (self.within, byte) {
                    (Within::Start, b'"') => {
                        self.opened = self.line;
                        Within::Quoted
                    }
                    (Within::Quoted, b'"') => Within::Quote,
                    (Within::Quoted, _) | (Within::Quote, b'"') => Within::Quoted,
                    (_, b',' | b'\n' | b'\r') => Within::Start,
                    _ => Within::Plain,
                };
            }
        }
    }

    impl Read for Bounded {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.input.read(out)?;
            self.quotes.read(&out[..n]);
            let is_open = self.quotes.within == Within::Quoted;
            let line = 1 + if is_open { self.quotes.opened } else { self.quotes.line };
            if n == 0 && is_open {
                return Err(io::Error::other(AtLine(line, "a quote is opened that nothing closes".into())));
            }
            match self.since_record.fetch_add(n as u64, Ordering::Relaxed) > LONGEST_RECORD {
                true => {
                    let why = format!("a record longer than {} MiB: is a quote open?", LONGEST_RECORD >> 20);
                    Err(io::Error::other(AtLine(line, why)))
                }
                false => Ok(n),
            }
        }
    }

    struct Table {
        file: Arc<Path>,
        input: csv::Reader<Bounded>,
        since_record: Arc<AtomicU64>,
        /// Which make the document, joined by a blank.
        columns: Vec<usize>,
    }

    pub(in super::super) fn open(
        file: Arc<Path>,
        input: Bytes,
        columns: &[Column],
        header: Header,
    ) -> Result<Box<dyn FilePieces>> {
        let since_record = Arc::new(AtomicU64::new(0));
        let input = Bounded { input, since_record: since_record.clone(), quotes: Quotes::default() };
        let mut input = csv::ReaderBuilder::new().has_headers(header == Header::Present).from_reader(input);
        let mut place = |column: &Column| match column {
            Column::Index(index) => Ok(*index),
            Column::Name(name) => {
                let names = input.byte_headers().map_err(|error| in_file(&file, &error))?;
                names.iter().position(|found| found == name.as_bytes()).ok_or_else(|| {
                    let names: Vec<_> = names.iter().map(String::from_utf8_lossy).collect();
                    Error::new(format!("{}:1: no column {name:?}; there are: {}", file.display(), names.join(", ")))
                })
            }
        };
        let columns = columns.iter().map(&mut place).collect::<Result<_>>()?;
        Ok(Box::new(Table { file, input, since_record, columns }))
    }

    fn in_file(file: &Path, error: &csv::Error) -> Error {
        let name = file.display();
        if let csv::ErrorKind::Io(error) = error.kind() {
            return match error.get_ref().and_then(|inner| inner.downcast_ref::<AtLine>()) {
                Some(AtLine(line, why)) => Error::new(format!("{name}:{line}: {why}")),
                None => Error::io("read", file, error),
            };
        }
        Error::new(match error.kind() {
            csv::ErrorKind::UnequalLengths { pos: Some(pos), expected_len, len } => {
                format!("{name}:{}: number of columns {len}, those before it have {expected_len}", pos.line())
            }
            _ => format!("{name}: {error}"),
        })
    }

    impl FilePieces for Table {
        fn next_piece(&mut self) -> Result<Option<Piece>> {
            let mut record = ByteRecord::new();
            if !self.input.read_byte_record(&mut record).map_err(|error| in_file(&self.file, &error))? {
                return Ok(None);
            }
            self.since_record.store(0, Ordering::Relaxed);
            let line = record.position().map_or(0, csv::Position::line);
            let place = Place { file: self.file.clone(), at: At::Line(line) };
            let field = |&column: &usize| {
                record.get(column).ok_or_else(|| {
                    let (number, there) = (column + 1, record.len());
                    Error::new(format!("{place}: there is no column {number}, the record has {there}"))
                })
            };
            let bytes = self.columns.iter().map(field).collect::<Result<Vec<_>>>()?.join(&b' ');
            Ok(Some(Piece { bytes, document: 0, position: Position::Last, place }))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::super::super::documents::Pieces;
        use super::super::super::formats::Format;
        use super::*;
        use ltm::data::Bytes;

        fn column(text: &'static str, column: Column, header: Header) -> Result<Vec<(u64, String)>> {
            let format = Format::Csv { columns: vec![column], header };
            Pieces::of_reader("t.csv", Box::new(text.as_bytes()), &format, &Bytes)
                .map(|piece| piece.map(|piece| (piece.document, String::from_utf8(piece.bytes).unwrap())))
                .collect()
        }

        #[test]
        fn columns_by_place_and_by_name() {
            let text = "id,text\n1,\"a, \"\"b\"\"\nc\"\n2,plain\r\n3,\n";
            let expected = vec![(0, "a, \"b\"\nc".into()), (1, "plain".into()), (2, String::new())];
            assert_eq!(column(text, Column::Name("text".into()), Header::Present).unwrap(), expected);
            assert_eq!(column(text, Column::Index(1), Header::Present).unwrap(), expected);
            assert_eq!(column(text, Column::Index(0), Header::Absent).unwrap()[0].1, "id");
        }

        #[test]
        fn bad_tables_name_file_and_line() {
            for (text, which, message) in [
                ("a,b\n1,2\n", Column::Name("c".into()), "t.csv:1: no column \"c\"; there are: a, b"),
                ("a,b\n1,2\n", Column::Index(4), "t.csv:2: there is no column 5, the record has 2"),
            ] {
                assert_eq!(column(text, which, Header::Present).unwrap_err().to_string(), message);
            }
            let error = column("a,b\n1,2\n3\n", Column::Index(0), Header::Absent).unwrap_err().to_string();
            assert_eq!(error, "t.csv:3: number of columns 1, those before it have 2");
        }

        #[test]
        fn a_quote_must_be_closed() {
            let read = |text| column(text, Column::Index(0), Header::Absent);
            for (text, line) in [("a\n\"b\nc\nd\n", 2), ("\"a\"\"\n", 1), ("x,y\n\"a\",\"b\n", 2), ("\"", 1)] {
                let said = read(text).expect_err("an open quote").to_string();
                assert_eq!(said, format!("t.csv:{line}: a quote is opened that nothing closes"), "{text:?}");
            }
            // Quotes inside of plain fields, behind quoted ones, doubled, and at the very end.
            for text in ["a\"b\n", "\"a\"b\"\n", "\"a\"\"b\"\n", "\"a\nb\"", "\"\"\n"] {
                assert_eq!(read(text).expect("a table").len(), 1, "{text:?}");
            }
        }

        #[test]
        fn an_open_quote_does_not_fill_the_memory() {
            let endless = Box::new("\"".as_bytes().chain(io::repeat(b'x')));
            let format = Format::Csv { columns: vec![Column::Index(0)], header: Header::Absent };
            let error = Pieces::of_reader("t.csv", endless, &format, &Bytes).next().unwrap().unwrap_err().to_string();
            assert_eq!(error, "t.csv:1: a record longer than 64 MiB: is a quote open?");
        }
    }
}
