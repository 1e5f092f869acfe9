//! `suite.toml`: which sets, and how they are read.

use crate::toml_file::{self, Setting};
use engine::{Error, Result};
use lab::suite::{DETOKENISERS, Detokenise, Group, KNOWN, Known, Set, known};
use lab::text::FormatWords;
use lab::text::formats::{Column, Format};
use ltm::config::{Choice, Chunking};
use ltm::json::Value;
use std::path::{Path, PathBuf};

const KEYS: &str = "path, format, field, column, header, split, detokenise, chunking, documents";

/// A section of the file.
struct Section {
    name: String,
    /// Where it begins.
    place: String,
    path: Vec<PathBuf>,
    format: Option<String>,
    field: Option<String>,
    column: Vec<String>,
    header: bool,
    split: Option<String>,
    detokenise: Option<Detokenise>,
    chunking: Chunking,
    documents: Option<u64>,
}

/// The sets of the file at `path`, in its order. Relative paths start from `data`, or from the file's own folder.
///
/// # Errors
/// If it cannot be read, a key is unknown, or a set cannot be as it is described; the message names the line.
pub fn read(path: &Path, data: Option<&Path>) -> Result<Vec<Set>> {
    // Read twice, which a pipe cannot be.
    if path.exists() && !path.is_file() && !path.is_dir() {
        return Err(Error::usage(format!("{} is no regular file: write the suite into one", path.display())));
    }
    let tables = toml_file::tables(path)?;
    let mut sections: Vec<Section> = tables.iter().map(|(name, place)| Section::new(name, place)).collect();
    for setting in toml_file::read(path)? {
        let section = setting.key.split_once('.').and_then(|(name, key)| {
            let section = sections.iter_mut().find(|section| section.name == name)?;
            Some((section, key))
        });
        let Some((section, key)) = section else {
            let error = Error::usage(format!("{}: every set is a section, as in [ptb]", setting.key));
            return Err(error.at(&setting.place));
        };
        section.set(key, &setting).map_err(|error| error.at(&setting.key).at(&setting.place))?;
    }
    if sections.is_empty() {
        return Err(Error::usage(format!("{}: no set in it: a set is a section, as in [ptb]", path.display())));
    }
    let folder = data.or(path.parent()).unwrap_or(Path::new(""));
    sections.into_iter().map(|section| section.resolved(folder)).collect()
}

impl Section {
    fn new(name: &str, place: &str) -> Self {
        Self {
            name: name.into(),
            place: place.into(),
            path: Vec::new(),
            format: None,
            field: None,
            column: Vec::new(),
            header: false,
            split: None,
            detokenise: None,
            chunking: Chunking::Windows,
            documents: None,
        }
    }

    fn set(&mut self, key: &str, setting: &Setting) -> Result<()> {
        let value = &ltm::json::from_serde(&setting.value)?;
        let text = || value.as_str().map(str::to_string);
        match key {
            "path" => self.path = several(value)?.into_iter().map(PathBuf::from).collect(),
            "format" => self.format = Some(text()?),
            "field" => self.field = Some(text()?),
            "column" => self.column = several(value)?,
            "header" => self.header = value.as_bool()?,
            "split" => self.split = Some(text()?),
            "detokenise" => self.detokenise = Some(choice(&text()?, &DETOKENISERS)?),
            "chunking" => {
                let choices: Vec<_> = Chunking::ALL.iter().map(|&(value, name)| (name, value)).collect();
                self.chunking = choice(&text()?, &choices)?;
            }
            "documents" => match value.as_u64()? {
                0 => return Err(Error::usage("must be at least 1")),
                n => self.documents = Some(n),
            },
            _ => return Err(Error::usage(format!("unknown key: a set has {KEYS}"))),
        }
        Ok(())
    }

    fn resolved(self, folder: &Path) -> Result<Set> {
        let known = known(&self.name);
        let place = self.place.clone();
        self.set_of(known, folder).map_err(|error| Error::usage(error.to_string()).at(place))
    }

    fn set_of(self, known: Option<&Known>, folder: &Path) -> Result<Set> {
        if self.path.is_empty() {
            return Err(Error::usage(format!("[{}] needs path = \"FILE\"", self.name)));
        }
        let usual = known.map(Known::format);
        let format = self.format.as_deref().or(usual.as_ref().map(name_of)).ok_or_else(|| {
            let names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
            Error::usage(format!(
                "[{}] is none of {}: a set of your own needs format = \"text\", \"jsonl\" or \"csv\"",
                self.name,
                names.join(", ")
            ))
        })?;
        // What a known set is usually like holds where the file is of the usual format.
        let usual = usual.filter(|usual| name_of(usual) == format);
        let detokenise = self.detokenise.or(known.map(|known| known.detokenise)).unwrap_or(Detokenise::None);
        let (mut field, mut columns) = (self.field.clone(), self.column.clone());
        match &usual {
            Some(Format::Jsonl { field: usual }) => field = field.or(Some(usual.clone())),
            Some(Format::Csv { columns: usual, .. }) if columns.is_empty() => {
                columns = usual.iter().map(number).collect()
            }
            _ => {}
        }
        let (split, group) = match (self.split.as_deref(), &usual) {
            (None, Some(Format::Text(_))) => (Some("lines"), known.map_or(Group::Each, Known::group)),
            (Some("articles"), _) => (Some("lines"), Group::Articles),
            // Words become text line by line.
            (None | Some("file"), _) if format == "text" && detokenise != Detokenise::None => {
                (Some("lines"), Group::All)
            }
            (split, _) => (split, Group::Each),
        };
        let words = FormatWords {
            format: Some(format),
            field: field.as_deref(),
            column: columns.first().map(String::as_str),
            header: self.header,
            split,
        };
        // The words are the command line's: here they are keys.
        let mut format = words.parse().map_err(|error| Error::usage(error.to_string().replace("--", "")))?;
        if let Format::Csv { columns: found, header } = &mut format {
            *found = columns.iter().map(|column| column.parse()).collect::<Result<_>>()?;
            if found.iter().any(|column| matches!(column, Column::Name(_))) {
                *header = true;
            }
        }
        Ok(Set {
            files: self.path.iter().map(|path| folder.join(path)).collect(),
            name: self.name,
            format,
            group,
            detokenise,
            chunking: self.chunking,
            documents: self.documents,
        })
    }
}

fn name_of(format: &Format) -> &'static str {
    match format {
        Format::Text(_) => "text",
        Format::Jsonl { .. } => "jsonl",
        Format::Csv { .. } => "csv",
    }
}

fn number(column: &Column) -> String {
    match column {
        Column::Index(index) => (index + 1).to_string(),
        Column::Name(name) => name.clone(),
    }
}

/// A string or a number, or several.
fn several(value: &Value) -> Result<Vec<String>> {
    let one = |value: &Value| match value {
        Value::Number(_) => value.as_u64().map(|n| n.to_string()),
        text => text.as_str().map(str::to_string),
    };
    let all = match value {
        Value::Array(items) => items.iter().map(one).collect::<Result<Vec<_>>>()?,
        value => vec![one(value)?],
    };
    if all.is_empty() { Err(Error::usage("must name at least one")) } else { Ok(all) }
}

fn choice<T: Copy>(word: &str, choices: &[(&str, T)]) -> Result<T> {
    choices.iter().find(|(name, _)| *name == word).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        Error::usage(format!("{word:?}: choose one of {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(text: &str) -> Result<Vec<Set>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("suite.toml");
        std::fs::write(&file, text).unwrap();
        read(&file, Some(Path::new("data")))
    }

    #[test]
    fn known_sets_need_no_more_than_a_path() {
        let text = KNOWN.map(|known| format!("[{}]\npath = 'f'\n", known.name)).concat();
        let sets = sets(&text).unwrap();
        let reading: Vec<String> = sets.iter().map(Set::reading).collect();
        assert_eq!(reading[0], "text by lines, detokenise ptb, windows");
        assert_eq!(reading[1], "text by articles, detokenise wikitext, windows");
        assert_eq!(reading[3], "jsonl field text, detokenise lambada, windows");
        assert_eq!(reading[4], "csv column 2+3, detokenise none, windows");
        assert_eq!(reading[6], "jsonl field article, detokenise papers, windows");
        assert!(sets.iter().all(|set| set.files == [Path::new("data/f")]));
    }

    #[test]
    fn keys_change_what_is_usual() {
        let text = "[ptb]\npath = ['a', '/b']\nsplit = 'file'\nchunking = 'documents'\ndocuments = 7\n\
                    [agnews]\npath = 'f'\ncolumn = 'text'\n[lm1b]\npath = 'f'\nformat = 'jsonl'\nfield = 't'\n\
                    [own]\npath = 'f'\nformat = 'text'\n[table]\npath = 'f'\nformat = 'csv'\ncolumn = [1, 2]\nheader = true\n";
        let sets = sets(text).unwrap();
        let reading: Vec<String> = sets.iter().map(Set::reading).collect();
        assert_eq!(reading[0], "text by file, detokenise ptb, documents, the first 7 documents only");
        assert_eq!(sets[0].files, [Path::new("data/a"), Path::new("/b")]);
        assert_eq!(reading[1], "csv column text behind a header, detokenise none, windows");
        assert_eq!(reading[2], "jsonl field t, detokenise lm1b, windows");
        assert_eq!(reading[3], "text by file, detokenise none, windows");
        assert_eq!(reading[4], "csv column 1+2 behind a header, detokenise none, windows");
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, parts) in [
            ("path = 'f'\n", [":1: ", "every set is a section"]),
            ("[ptb]\npath = 'f'\ncolour = 1\n", [":3: ", "ptb.colour: unknown key: a set has path"]),
            ("[lm1b]\npath = 'f'\n[ptb]\n", [":3: ", "[ptb] needs path"]),
            ("[ptb]\npath = 'f'\nfield = 'text'\n", [":1: ", "field belongs to format jsonl, not to format text"]),
            ("[ptb]\nchunking = 'docs'\n", [":2: ", "choose one of windows, documents"]),
            ("\n[ptb]\nsplit = 'lines'\n", [":2: ", "[ptb] needs path"]),
            ("[wikitxt]\npath = 'f'\n", [":1: ", "[wikitxt] is none of ptb, wikitext,"]),
            ("[own]\npath = 'f'\nformat = 'jsonl'\n", [":1: ", "format jsonl needs field NAME"]),
            ("[ptb]\npath = 'f'\ndocuments = 0\n", [":3: ", "at least 1"]),
            ("[ptb]\npath = []\n", [":2: ", "at least one"]),
            ("[ptb]\npath = true\n", [":2: ", "expected a string"]),
            ("# nothing\n", ["suite.toml: ", "no set in it"]),
        ] {
            let error = sets(text).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{error}");
        }
    }
}
