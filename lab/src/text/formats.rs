//! Which part of a file is a document: what `--format`, `--field`, `--column`, `--header` and `--split` say.

use engine::{Error, Result};
use std::str::FromStr;

/// How documents lie in an input file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// Plain text.
    Text(TextSplit),
    /// One JSON object per line; the document is the string `field`. Blank lines are skipped.
    Jsonl {
        /// Key of the document.
        field: String,
    },
    /// Comma-separated values with quotes as in RFC 4180, one record per document; the document is one column, or several
    /// joined by a blank.
    Csv {
        /// Which columns.
        columns: Vec<Column>,
        /// Whether the first record names the columns.
        header: Header,
    },
}

/// What one document is in plain text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextSplit {
    /// The whole file, byte for byte.
    #[default]
    File,
    /// Each line, without its line ending; lines without a character are skipped.
    Lines,
    /// Each stretch between blank lines (nothing but blanks), without the last line's ending.
    BlankLines,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// By place, counted from zero; the command line counts from one.
    Index(usize),
    /// By the name in the header.
    Name(String),
}

/// Whether the first record of a table names its columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// The first record is data.
    #[default]
    Absent,
    /// The first record names the columns and is no document.
    Present,
}

/// The words of the command line, as they come.
#[derive(Clone, Copy, Debug, Default)]
pub struct FormatWords<'a> {
    /// `--format`: `text` (the default), `jsonl` or `csv`.
    pub format: Option<&'a str>,
    /// `--field`: the key of the document in jsonl.
    pub field: Option<&'a str>,
    /// `--column`: a number, counted from 1, or a name.
    pub column: Option<&'a str>,
    /// `--header`: the first record names the columns. Follows by itself from a column given by name.
    pub header: Header,
    /// `--split`: `file` (the default), `lines` or `blank-lines`, for text.
    pub split: Option<&'a str>,
}

impl FormatWords<'_> {
    /// The format that these words ask for.
    ///
    /// # Errors
    /// Unknown words, missing ones, and words that belong to another format.
    pub fn parse(&self) -> Result<Format> {
        let format = self.format.unwrap_or("text");
        let belongs = |flag: &str, to: &str, given: bool| match given && format != to {
            true => Err(Error::usage(format!("{flag} belongs to --format {to}, not to --format {format}"))),
            false => Ok(()),
        };
        belongs("--field", "jsonl", self.field.is_some())?;
        belongs("--column", "csv", self.column.is_some())?;
        belongs("--header", "csv", self.header == Header::Present)?;
        belongs("--split", "text", self.split.is_some())?;
        match format {
            "text" => Ok(Format::Text(self.split.map_or(Ok(TextSplit::default()), str::parse)?)),
            "jsonl" => match self.field {
                Some(field) => Ok(Format::Jsonl { field: field.into() }),
                None => Err(Error::usage("--format jsonl needs --field NAME: the key that holds the text")),
            },
            "csv" => {
                let column = self.column.ok_or_else(|| {
                    Error::usage("--format csv needs --column C: the text's column, by name or by number from 1")
                })?;
                let column: Column = column.parse()?;
                let named = matches!(column, Column::Name(_));
                Ok(Format::Csv { columns: vec![column], header: if named { Header::Present } else { self.header } })
            }
            other => Err(Error::usage(format!("there is no format {other:?}: choose text, jsonl or csv"))),
        }
    }
}

impl FromStr for TextSplit {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "file" => Ok(Self::File),
            "lines" => Ok(Self::Lines),
            "blank-lines" => Ok(Self::BlankLines),
            other => Err(Error::usage(format!("--split {other:?}: choose file, lines or blank-lines"))),
        }
    }
}

impl FromStr for Column {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word.parse::<usize>() {
            Ok(0) => Err(Error::usage("--column 0: columns are counted from 1")),
            Ok(number) => Ok(Self::Index(number - 1)),
            Err(_) => Ok(Self::Name(word.into())),
        }
    }
}

/// A part of the documents: `--validation 0.01`.
///
/// # Errors
/// Anything but a number in 0..1.
pub fn parse_fraction(flag: &str, word: &str) -> Result<f64> {
    match word.parse::<f64>() {
        Ok(x) if (0.0..1.0).contains(&x) => Ok(x),
        _ => Err(Error::usage(format!("{flag} {word}: must be a number from 0 to below 1, e.g. 0.01"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_formats() {
        let none = FormatWords::default();
        assert_eq!(none.parse().unwrap(), Format::Text(TextSplit::File));
        let lines = FormatWords { split: Some("blank-lines"), ..none };
        assert_eq!(lines.parse().unwrap(), Format::Text(TextSplit::BlankLines));
        let jsonl = FormatWords { format: Some("jsonl"), field: Some("text"), ..none };
        assert_eq!(jsonl.parse().unwrap(), Format::Jsonl { field: "text".into() });
        let csv = FormatWords { format: Some("csv"), column: Some("3"), ..none };
        assert_eq!(csv.parse().unwrap(), Format::Csv { columns: vec![Column::Index(2)], header: Header::Absent });
        let csv = FormatWords { column: Some("title"), ..csv };
        assert_eq!(
            csv.parse().unwrap(),
            Format::Csv { columns: vec![Column::Name("title".into())], header: Header::Present }
        );
    }

    #[test]
    fn wrong_words_are_told_what_would_be_right() {
        let none = FormatWords::default();
        for (words, message) in [
            (FormatWords { format: Some("xml"), ..none }, "there is no format \"xml\": choose text, jsonl or csv"),
            (FormatWords { field: Some("a"), ..none }, "--field belongs to --format jsonl, not to --format text"),
            (
                FormatWords { format: Some("csv"), column: Some("1"), split: Some("lines"), ..none },
                "--split belongs to --format text, not to --format csv",
            ),
            (
                FormatWords { format: Some("jsonl"), ..none },
                "--format jsonl needs --field NAME: the key that holds the text",
            ),
            (
                FormatWords { format: Some("csv"), ..none },
                "--format csv needs --column C: the text's column, by name or by number from 1",
            ),
            (FormatWords { format: Some("csv"), column: Some("0"), ..none }, "--column 0: columns are counted from 1"),
            (FormatWords { split: Some("words"), ..none }, "--split \"words\": choose file, lines or blank-lines"),
        ] {
            let error = words.parse().unwrap_err();
            assert_eq!((error.to_string().as_str(), error.kind()), (message, engine::ErrorKind::Usage));
        }
        assert_eq!(parse_fraction("--validation", "0.25").unwrap(), 0.25);
        for word in ["1", "-0.1", "nan", "x", ""] {
            assert!(parse_fraction("--validation", word).is_err(), "{word}");
        }
    }
}
