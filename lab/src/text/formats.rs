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
        /// Whether the first record names the columns and is no document.
        header: bool,
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

/// The words of the command line or of a suite file, as they come.
#[derive(Clone, Copy, Debug, Default)]
pub struct FormatWords<'a> {
    /// `--format`: `text` (the default), `jsonl` or `csv`.
    pub format: Option<&'a str>,
    /// `--field`: the key of the document in jsonl.
    pub field: Option<&'a str>,
    /// `--column`: a number, counted from 1, or a name.
    pub column: Option<&'a str>,
    /// `--header`: the first record names the columns. Follows by itself from a column given by name.
    pub header: bool,
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
        for (flag, owner, given) in [
            ("--field", "jsonl", self.field.is_some()),
            ("--column", "csv", self.column.is_some()),
            ("--header", "csv", self.header),
            ("--split", "text", self.split.is_some()),
        ] {
            if given && format != owner {
                return Err(Error::usage(format!("{flag} belongs to --format {owner}, not to --format {format}")));
            }
        }
        match (format, self.field, self.column) {
            ("text", ..) => Ok(Format::Text(self.split.map_or(Ok(TextSplit::default()), str::parse)?)),
            ("jsonl", Some(field), _) => Ok(Format::Jsonl { field: field.into() }),
            ("jsonl", ..) => Err(Error::usage("--format jsonl needs --field NAME: the key that holds the text")),
            ("csv", _, Some(column)) => {
                let column = column.parse()?;
                let header = self.header || matches!(column, Column::Name(_));
                Ok(Format::Csv { columns: vec![column], header })
            }
            ("csv", ..) => {
                Err(Error::usage("--format csv needs --column C: the text's column, by name or by number from 1"))
            }
            (other, ..) => Err(Error::usage(format!("there is no format {other:?}: choose text, jsonl or csv"))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_formats() {
        let none = FormatWords::default();
        let csv = FormatWords { format: Some("csv"), ..none };
        let text = FormatWords { field: Some("text"), ..none };
        let name = Column::Name("title".into());
        for (words, format) in [
            (none, Format::Text(TextSplit::File)),
            (FormatWords { split: Some("blank-lines"), ..none }, Format::Text(TextSplit::BlankLines)),
            (FormatWords { format: Some("jsonl"), ..text }, Format::Jsonl { field: "text".into() }),
            (FormatWords { column: Some("3"), ..csv }, Format::Csv { columns: vec![Column::Index(2)], header: false }),
            (FormatWords { column: Some("title"), ..csv }, Format::Csv { columns: vec![name], header: true }),
        ] {
            assert_eq!(words.parse(), Ok(format));
        }
        for (words, message) in [
            (FormatWords { format: Some("xml"), ..none }, "there is no format \"xml\": choose text, jsonl or csv"),
            (text, "--field belongs to --format jsonl, not to --format text"),
            (
                FormatWords { column: Some("1"), split: Some("lines"), ..csv },
                "--split belongs to --format text, not to --format csv",
            ),
            (
                FormatWords { format: Some("jsonl"), ..none },
                "--format jsonl needs --field NAME: the key that holds the text",
            ),
            (csv, "--format csv needs --column C: the text's column, by name or by number from 1"),
            (FormatWords { column: Some("0"), ..csv }, "--column 0: columns are counted from 1"),
            (FormatWords { split: Some("words"), ..none }, "--split \"words\": choose file, lines or blank-lines"),
        ] {
            assert_eq!(words.parse(), Err(Error::usage(message)));
        }
    }
}
