//! `--config run.toml`: tables and dotted keys become settings.

use engine::{Error, Result};
use serde_json::Value;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A setting of a file.
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// File and line, for messages.
    pub place: String,
}

/// Reads the settings of the file at `path`, in its order.
///
/// # Errors
/// If it cannot be read or is not TOML; the message names the line.
pub fn read(path: &Path) -> Result<Vec<Setting>> {
    settings(bytes(path)?, path)
}

fn settings(bytes: Vec<u8>, path: &Path) -> Result<Vec<Setting>> {
    inside(bytes, path, |root, place| {
        let mut settings = Vec::new();
        flatten("", root, place, &mut settings)?;
        Ok(settings)
    })
}

/// The names of the tables in the table `name` of the file at `path`, in its order, each with its place; a table may be
/// empty.
///
/// # Errors
/// As [`read`].
pub fn tables_in(path: &Path, name: &str) -> Result<Vec<(String, String)>> {
    inside(bytes(path)?, path, |root, place| match root.get(name).map(Spanned::get_ref) {
        Some(DeValue::Table(table)) => Ok(named(table, place)),
        _ => Ok(Vec::new()),
    })
}

fn named(root: &DeTable<'_>, place: &dyn Fn(usize) -> String) -> Vec<(String, String)> {
    let tables = root.iter().filter(|(_, value)| matches!(value.get_ref(), DeValue::Table(_)));
    let mut names: Vec<_> = tables.map(|(name, _)| (name.span().start, name.get_ref().to_string())).collect();
    names.sort_unstable();
    names.into_iter().map(|(at, name)| (name, place(at))).collect()
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io("read", path, &e))
}

/// Parses the file's content and hands its root and the names of its places to `visit`.
fn inside<T>(
    bytes: Vec<u8>,
    path: &Path,
    visit: impl FnOnce(&DeTable<'_>, &dyn Fn(usize) -> String) -> Result<T>,
) -> Result<T> {
    let text = String::from_utf8(bytes).map_err(|e| {
        Error::usage(format!("{}: byte {} is not UTF-8, as TOML must be", path.display(), e.utf8_error().valid_up_to()))
    })?;
    let place = |at: usize| {
        let line = 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
        format!("{}:{line}", path.display())
    };
    let root = DeTable::parse(&text).map_err(|e| {
        let message = e.message().replace('\n', ", ");
        Error::usage(message).at(place(e.span().map_or(0, |span| span.start)))
    })?;
    visit(root.get_ref(), &place)
}

fn flatten(prefix: &str, table: &DeTable<'_>, place: &dyn Fn(usize) -> String, out: &mut Vec<Setting>) -> Result<()> {
    // Tables are sorted by name; the file's own order is that of the places.
    let mut entries: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        let key = format!("{prefix}{}", name.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&format!("{key}."), inner, place, out)?,
            plain => {
                let place = place(name.span().start);
                let value = convert(plain).ok_or_else(|| {
                    Error::usage(format!("{key}: no setting takes a {}", plain.type_str())).at(&place)
                })?;
                out.push(Setting { key, value, place });
            }
        }
    }
    Ok(())
}

fn convert(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(x) => (*x).into(),
        // Digits beyond 64 bits stay text, which the key then refuses with its reason.
        DeValue::Integer(x) => match i64::from_str_radix(x.as_str(), x.radix()) {
            Ok(x) => x.into(),
            Err(_) => x.as_str().into(),
        },
        DeValue::Float(x) => x.as_str().parse::<f64>().ok()?.into(),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| convert(item.get_ref())).collect::<Option<_>>()?),
        DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<(String, String)>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let settings = read(file.path())?;
        let line = |place: String| place.rsplit(':').next().unwrap_or_default().to_string();
        Ok(settings.into_iter().map(|s| (format!("{} {}", line(s.place), s.key), s.value.to_string())).collect())
    }

    #[test]
    fn tables_and_dotted_keys_are_settings() {
        let text = "train.steps = 1_000\n[fast]\nrate_start = 0.1\nnoise = 'fresh'\n[data]\npaths = [\"a\", \"b\"]\n";
        let found = parse(text).unwrap();
        let expected = [
            ("1 train.steps", "1000"),
            ("3 fast.rate_start", "0.1"),
            ("4 fast.noise", "\"fresh\""),
            ("6 data.paths", "[\"a\",\"b\"]"),
        ];
        assert_eq!(found, expected.map(|(a, b)| (a.to_string(), b.to_string())));
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line, message) in [
            ("a.b = 1\nc = \n", ":2: ", "string"),
            ("[train]\nsteps = 1\nsteps = 2\n", ":3: ", "duplicate"),
            ("\n\nd = 1979-05-27\n", ":3: ", "no setting takes a datetime"),
        ] {
            let error = parse(text).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(line) && text.contains(message) && !text.contains('\n'), "{text}");
            assert_eq!(error.kind(), engine::ErrorKind::Usage);
        }
    }
}
