//! TOML files by serde, with errors of one line that name file and line.

use engine::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// File and line of the byte `at` of `text`, the content of the file at `path`.
pub fn place(text: &str, path: &Path, at: usize) -> String {
    let line = 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
    format!("{}:{line}", path.display())
}

/// Reads `text`, the content of the file at `path`.
///
/// # Errors
/// A usage error: invalid TOML, or an invalid key or value.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Error::usage(error.message().trim_end().replace('\n', ", ")).at(place(text, path, at))
    })
}

/// One value or several.
#[derive(Deserialize)]
#[serde(try_from = "OneOrMore<T>")]
pub struct Several<T>(pub Vec<T>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected one value or several")]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> TryFrom<OneOrMore<T>> for Several<T> {
    type Error = &'static str;

    fn try_from(values: OneOrMore<T>) -> std::result::Result<Self, Self::Error> {
        match values {
            OneOrMore::One(value) => Ok(Self(vec![value])),
            OneOrMore::More(values) if values.is_empty() => Err("an empty list: name a value or remove the key"),
            OneOrMore::More(values) => Ok(Self(values)),
        }
    }
}
