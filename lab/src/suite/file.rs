//! `suite.toml`: which sets, and how they are read.

use super::sets::Layout;
use super::{Detokenise, KNOWN, Set, known};
use crate::text::formats::{Column, Format, TextSplit};
use engine::{Error, Result};
use ltm::config::{Choice, Chunking};
use serde::de::{Deserialize, Deserializer, Error as _};
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// A set as the file has it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase", expecting = "a section, as in [ptb]")]
struct Section {
    path: Several<PathBuf>,
    format: Option<Kind>,
    field: Option<String>,
    column: Option<Several<Place>>,
    header: Option<bool>,
    split: Option<Split>,
    detokenise: Option<Detokenise>,
    #[serde(default, deserialize_with = "chunking")]
    chunking: Option<Chunking>,
    documents: Option<NonZeroU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Text,
    Jsonl,
    Csv,
}

#[derive(Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Split {
    File,
    Lines,
    BlankLines,
    Articles,
}

/// One value or several.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "expected one value or several")]
enum Several<T> {
    One(T),
    More(Vec<T>),
}

impl<T> Several<T> {
    fn all(self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value],
            Self::More(values) => values,
        }
    }
}

/// A column by number, counted from 1, or by name.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "expected a column's number, from 1, or its name")]
enum Place {
    Number(usize),
    Name(String),
}

fn chunking<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Chunking>, D::Error> {
    let word = String::deserialize(deserializer)?;
    let found = Chunking::ALL.iter().find(|(_, name)| *name == word);
    found.map(|(value, _)| Some(*value)).ok_or_else(|| {
        let names: Vec<_> = Chunking::ALL.iter().map(|(_, name)| *name).collect();
        D::Error::custom(format!("{word:?}: choose one of {}", names.join(", ")))
    })
}

/// The sets of the file at `path`, in its order. Relative paths start from `data`, or from the file's own folder.
///
/// # Errors
/// If it cannot be read, a key is unknown, or a set cannot be as it is described; the message names the line.
pub fn sets(path: &Path, data: Option<&Path>) -> Result<Vec<Set>> {
    let text = fs::read_to_string(path).map_err(|error| Error::io("read", path, &error))?;
    let place = |at: usize| {
        let line = 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
        format!("{}:{line}", path.display())
    };
    let sections: BTreeMap<String, Spanned<Section>> = toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Error::usage(error.message().trim_end().replace('\n', ", ")).at(place(at))
    })?;
    if sections.is_empty() {
        return Err(Error::usage(format!("{}: no set in it: a set is a section, as in [ptb]", path.display())));
    }
    let folder = data.or(path.parent()).unwrap_or(Path::new(""));
    let mut sections: Vec<_> = sections.into_iter().collect();
    sections.sort_by_key(|(_, section)| section.span().start);
    let set = |(name, section): (String, Spanned<Section>)| {
        let at = section.span().start;
        section.into_inner().set(&name, folder).map_err(|error| error.at(format!("[{name}]")).at(place(at)))
    };
    sections.into_iter().map(set).collect()
}

impl Section {
    fn set(self, name: &str, folder: &Path) -> Result<Set> {
        let known = known(name);
        let usual = known.map(|known| match known.layout {
            Layout::Lines | Layout::Articles => Kind::Text,
            Layout::Jsonl(_) => Kind::Jsonl,
            Layout::Csv(_) => Kind::Csv,
        });
        let Some(kind) = self.format.or(usual) else {
            let names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
            return Err(Error::usage(format!(
                "none of {}: a set of your own needs format = \"text\", \"jsonl\" or \"csv\"",
                names.join(", ")
            )));
        };
        for (key, given, of) in [
            ("field", self.field.is_some(), Kind::Jsonl),
            ("column", self.column.is_some(), Kind::Csv),
            ("header", self.header.is_some(), Kind::Csv),
            ("split", self.split.is_some(), Kind::Text),
        ] {
            if given && kind != of {
                let [of, kind] = [of, kind].map(|kind| format!("{kind:?}").to_lowercase());
                return Err(Error::usage(format!("{key} belongs to format {of}, not to format {kind}")));
            }
        }
        let detokenise = self.detokenise.or(known.map(|known| known.detokenise)).unwrap_or(Detokenise::None);
        // What a known set is usually like holds where the file is of the usual format.
        let layout = known.filter(|_| usual == Some(kind)).map(|known| known.layout);
        let split = self.split.or(match layout {
            Some(Layout::Lines) => Some(Split::Lines),
            Some(Layout::Articles) => Some(Split::Articles),
            _ => None,
        });
        let format = match kind {
            Kind::Text => Format::Text(match split.unwrap_or(Split::File) {
                Split::File => TextSplit::File,
                Split::Lines | Split::Articles => TextSplit::Lines,
                Split::BlankLines => TextSplit::BlankLines,
            }),
            Kind::Jsonl => match (self.field, layout) {
                (Some(field), _) => Format::Jsonl { field },
                (None, Some(Layout::Jsonl(field))) => Format::Jsonl { field: field.into() },
                _ => return Err(Error::usage("format jsonl needs field = \"NAME\": the key that holds the text")),
            },
            Kind::Csv => {
                let places = match (self.column, layout) {
                    (Some(column), _) => column.all(),
                    (None, Some(Layout::Csv(columns))) => columns.iter().map(|&n| Place::Number(n)).collect(),
                    _ => Vec::new(),
                };
                let column = |place| match place {
                    Place::Number(0) => Err(Error::usage("column 0: columns are counted from 1")),
                    Place::Number(n) => Ok(Column::Index(n - 1)),
                    Place::Name(name) => Ok(Column::Name(name)),
                };
                let columns = places.into_iter().map(column).collect::<Result<Vec<_>>>()?;
                if columns.is_empty() {
                    return Err(Error::usage("format csv needs column = C: the text's column, by name or by number"));
                }
                let is_named = columns.iter().any(|column| matches!(column, Column::Name(_)));
                Format::Csv { columns, header: is_named || self.header == Some(true) }
            }
        };
        let files: Vec<PathBuf> = self.path.all().iter().map(|path| folder.join(path)).collect();
        if files.is_empty() {
            return Err(Error::usage("path must name at least one file"));
        }
        let chunking = self.chunking.unwrap_or(Chunking::Windows);
        let documents = self.documents.map(NonZeroU64::get);
        let by_articles = split == Some(Split::Articles);
        Ok(Set { name: name.into(), files, format, by_articles, detokenise, chunking, documents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(text: &str) -> Result<Vec<Set>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("suite.toml");
        fs::write(&file, text).unwrap();
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
            "csv column text behind a header, detokenise none, windows",
            "jsonl field t, detokenise lm1b, windows",
            "text by file, detokenise none, windows",
            "csv column 1+2 behind a header, detokenise none, windows",
        ];
        assert_eq!(reading, expected);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, parts) in [
            ("path = 'f'\n", [":1: ", "expected a section, as in [ptb]"]),
            ("[ptb]\npath = 'f'\ncolour = 1\n", [":3: ", "unknown field `colour`, expected one of `path`"]),
            ("[lm1b]\npath = 'f'\n[ptb]\n", [":3: ", "missing field `path`"]),
            (
                "[ptb]\npath = 'f'\nfield = 'text'\n",
                [":1: ", "[ptb]: field belongs to format jsonl, not to format text"],
            ),
            ("[ptb]\npath = 'f'\nchunking = 'docs'\n", [":3: ", "choose one of windows, documents"]),
            ("\n[ptb]\nsplit = 'lines'\n", [":2: ", "missing field `path`"]),
            ("[wikitxt]\npath = 'f'\n", [":1: ", "[wikitxt]: none of ptb, wikitext,"]),
            ("[own]\npath = 'f'\nformat = 'jsonl'\n", [":1: ", "format jsonl needs field"]),
            ("[own]\npath = 'f'\nformat = 'csv'\ncolumn = 0\n", [":1: ", "counted from 1"]),
            ("[ptb]\npath = 'f'\ndocuments = 0\n", [":3: ", "nonzero"]),
            ("[ptb]\npath = []\n", [":1: ", "at least one"]),
            ("[ptb]\npath = true\n", [":2: ", "expected one value or several"]),
            ("# nothing\n", ["suite.toml: ", "no set in it"]),
        ] {
            let error = sets(text).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{text:?}: {error}");
        }
    }
}
