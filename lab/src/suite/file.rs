//! Reads `suite.toml`: the sets and their formats.

use super::{Detokenise, KNOWN, Set, known};
use crate::text::{Column, Format, TextSplit};
use crate::toml_file::{self, Several};
use engine::{Error, Result, file};
use ltm::config::Chunking;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// A set from the file, or the defaults of a known set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section, as in [ptb]")]
struct Section {
    path: Several<PathBuf>,
    format: Option<Kind>,
    field: Option<String>,
    column: Option<Several<Column>>,
    header: Option<bool>,
    split: Option<TextSplit>,
    detokenise: Option<Detokenise>,
    chunking: Option<Chunking>,
    documents: Option<NonZeroU64>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Text,
    Jsonl,
    Csv,
}

/// The sets of the file at `path`, in its order. Relative paths start from `data`, or from the file's own folder.
///
/// # Errors
/// If the file cannot be read, a key is unknown, or the keys of a set contradict each other; the message names the
/// line.
pub fn sets(path: &Path, data: Option<&Path>) -> Result<Vec<Set>> {
    let text = file::text(path)?;
    let sections: BTreeMap<String, Spanned<Section>> = toml_file::parse(&text, path)?;
    if sections.is_empty() {
        return Err(Error::usage(format!("{}: it has no set; a set is a section, as in [ptb]", path.display())));
    }
    let folder = data.or(path.parent()).unwrap_or(Path::new(""));
    let mut sections: Vec<_> = sections.into_iter().collect();
    sections.sort_by_key(|(_, section)| section.span().start);
    let set = |(name, section): (String, Spanned<Section>)| {
        let place = toml_file::place(&text, path, section.span().start);
        section.into_inner().set(&name, folder).map_err(|error| error.at(format!("[{name}]")).at(place))
    };
    sections.into_iter().map(set).collect()
}

impl Section {
    fn set(mut self, name: &str, folder: &Path) -> Result<Set> {
        let known = known(name);
        let usual = format!("path = ''\n{}", known.map_or("", |known| known.usual));
        let usual: Self = toml_file::parse(&usual, Path::new(name))?;
        let Some(kind) = self.format.or(usual.format) else {
            let names = KNOWN.map(|known| known.name).join(", ");
            return Err(Error::usage(format!(
                "not one of {names}: your own set needs format = \"text\", \"jsonl\" or \"csv\""
            )));
        };
        if usual.format == Some(kind) {
            self.split = self.split.or(usual.split);
            self.field = self.field.or(usual.field);
            self.column = self.column.or(usual.column);
        }
        let format = match (kind, self.split, self.field, self.column, self.header) {
            (Kind::Text, split, None, None, None) => Format::Text(split.unwrap_or(TextSplit::File)),
            (Kind::Jsonl, None, Some(field), None, None) => Format::Jsonl { field },
            (Kind::Csv, None, None, Some(columns), header) => Format::csv(columns.0, header == Some(true))?,
            _ => {
                return Err(Error::usage(
                    "format text may have split; jsonl needs field, the text's key; csv needs column, by name or by number, \
                     and may have header",
                ));
            }
        };
        Ok(Set {
            name: name.into(),
            title: known.map_or(name, |known| known.title).into(),
            published: known.map(|known| known.published),
            files: self.path.0.iter().map(|path| folder.join(path)).collect(),
            format,
            detokenise: self.detokenise.or(usual.detokenise).unwrap_or(Detokenise::None),
            chunking: self.chunking.unwrap_or(Chunking::Windows),
            documents: self.documents.map(NonZeroU64::get),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(text: &str) -> Result<Vec<Set>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("suite.toml");
        std::fs::write(&file, text).unwrap();
        super::sets(&file, Some(Path::new("data")))
    }

    #[test]
    fn known_sets_need_no_more_than_a_path_and_keys_change_what_is_usual() {
        let text = KNOWN.map(|known| format!("[{}]\npath = 'f'\n", known.name)).concat();
        let usual = sets(&text).unwrap();
        assert!(usual.iter().all(|set| set.files == [Path::new("data/f")]));
        let text = "[ptb]\npath = ['a', '/b']\nsplit = 'file'\nchunking = 'documents'\ndocuments = 7\n\
                    [agnews]\npath = 'f'\ncolumn = 'text'\n[lm1b]\npath = 'f'\nformat = 'jsonl'\nfield = 't'\n\
                    [own]\npath = 'f'\nformat = 'text'\n[table]\npath = 'f'\nformat = 'csv'\ncolumn = [1, 2]\nheader = true\n";
        let changed = sets(text).unwrap();
        assert_eq!(changed[0].files, [Path::new("data/a"), Path::new("/b")]);
        let reading: Vec<String> = usual.iter().chain(&changed).map(Set::reading).collect();
        let expected = [
            "text by lines, detokenise ptb, windows",
            "text by articles, detokenise wikitext, windows",
            "text by lines, detokenise lm1b, windows",
            "jsonl field text, detokenise lambada, windows",
            "csv column 2+3, detokenise none, windows",
            "jsonl field article, detokenise papers, windows",
            "jsonl field article, detokenise papers, windows",
            "text by file, detokenise ptb, documents, the first 7 documents only",
            "csv column text with a header, detokenise none, windows",
            "jsonl field t, detokenise lm1b, windows",
            "text by file, detokenise none, windows",
            "csv column 1+2 with a header, detokenise none, windows",
        ];
        assert_eq!(reading, expected);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, parts) in [
            ("path = 'f'\n", [":1: ", "expected a section, as in [ptb]"]),
            ("[ptb]\npath = 'f'\ncolour = 1\n", [":3: ", "unknown field `colour`, expected one of `path`"]),
            ("[lm1b]\npath = 'f'\n[ptb]\n", [":3: ", "missing field `path`"]),
            ("[ptb]\npath = 'f'\nfield = 'text'\n", [":1: ", "[ptb]: format text may have split; jsonl needs field"]),
            ("[ptb]\npath = 'f'\nchunking = 'docs'\n", [":3: ", "expected `windows` or `documents`"]),
            ("\n[ptb]\nsplit = 'lines'\n", [":2: ", "missing field `path`"]),
            ("[wikitxt]\npath = 'f'\n", [":1: ", "[wikitxt]: not one of ptb, wikitext,"]),
            ("[own]\npath = 'f'\nformat = 'jsonl'\n", [":1: ", "jsonl needs field"]),
            ("[own]\npath = 'f'\nformat = 'csv'\ncolumn = 0\n", [":1: ", "counted from 1"]),
            ("[ptb]\npath = 'f'\ndocuments = 0\n", [":3: ", "nonzero"]),
            ("[ptb]\npath = true\n", [":2: ", "expected one value or several"]),
            ("[ptb]\npath = []\n", [":2: ", "an empty list: name a value"]),
            ("# nothing\n", ["suite.toml: ", "it has no set"]),
        ] {
            let error = sets(text).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{text:?}: {error}");
        }
    }
}
