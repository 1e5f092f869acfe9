//! Which part of a file is a document.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextSplit {
    /// The whole file, byte for byte.
    File,
    /// Each line, without its line ending; lines without a character are skipped.
    Lines,
    /// Each stretch between blank lines (nothing but blanks), without the last line's ending.
    BlankLines,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// By place, counted from zero.
    Index(usize),
    /// By the name in the header.
    Name(String),
}
