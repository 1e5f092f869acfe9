//! TOML files: tables and dotted keys become settings, each with its place.

use engine::{Error, Result};
use lab::toml_file;
use serde_json::Value;
use std::path::Path;
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
    settings(&toml_file::text(path)?, path)
}

fn settings(text: &str, path: &Path) -> Result<Vec<Setting>> {
    let place = |at| toml_file::place(text, path, at);
    let root = DeTable::parse(text).map_err(|e| {
        let message = e.message().replace('\n', ", ");
        Error::usage(message).at(place(e.span().map_or(0, |span| span.start)))
    })?;
    let mut settings = Vec::new();
    flatten("", root.get_ref(), &place, &mut settings)?;
    Ok(settings)
}

fn flatten(prefix: &str, table: &DeTable<'_>, place: &dyn Fn(usize) -> String, out: &mut Vec<Setting>) -> Result<()> {
    // Tables are sorted by name; the file's own order is that of the places.
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        let key = format!("{prefix}{}", name.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            flatten(&format!("{key}."), inner, place, out)?;
            continue;
        }
        let (place, value) = (place(name.span().start), value.get_ref());
        let value = convert(value)
            .ok_or_else(|| Error::usage(format!("{key}: no setting takes a {}", value.type_str())).at(&place))?;
        out.push(Setting { key, value, place });
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
    use ltm::config::Config;
    use ltm::mutate;

    fn parse(text: &str) -> Result<Vec<Setting>> {
        settings(text, Path::new("run.toml"))
    }

    #[test]
    fn tables_and_dotted_keys_are_settings() {
        let text = "train.steps = 1_000\n[fast]\nrate_start = 0.1\nnoise = 'fresh'\n[data]\npaths = [\"a\", \"b\"]\n";
        let found = parse(text).unwrap();
        let found: Vec<String> = found.iter().map(|s| format!("{} {} {}", s.place, s.key, s.value)).collect();
        let expected = [
            "run.toml:1 train.steps 1000",
            "run.toml:3 fast.rate_start 0.1",
            "run.toml:4 fast.noise \"fresh\"",
            "run.toml:6 data.paths [\"a\",\"b\"]",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line, message) in [
            ("a.b = 1\nc = \n", ":2: ", "string"),
            ("[train]\nsteps = 1\nsteps = 2\n", ":3: ", "duplicate"),
            ("\n\nd = 1979-05-27\n", ":3: ", "no setting takes a datetime"),
        ] {
            let error = parse(text).err().unwrap();
            let text = error.to_string();
            assert!(text.contains(line) && text.contains(message) && !text.contains('\n'), "{text}");
            assert_eq!(error.kind(), engine::ErrorKind::Usage);
        }
    }

    /// Whatever a file says, it is refused in one line or sets what can be read back.
    #[test]
    fn damaged_files_never_panic() {
        let good = b"train.steps = 1_000\n[fast]\nrate_start = 1e-1\nnoise = 'fresh'\n[data]\npaths = [\"a\", \"b\"]\n\
            [model]\ndim = 0x80\nwindow = 32 # tokens\n";
        let refused = |error: &Error| assert!(!error.to_string().contains('\n'), "{error}");
        mutate::try_damaged(good, 5_000, |case, bytes| {
            let Ok(text) = String::from_utf8(bytes) else { return false };
            let settings = parse(&text).inspect_err(refused).unwrap_or_default();
            let taken = !settings.is_empty();
            let mut config = Config::default();
            for Setting { key, value, .. } in settings {
                config.set_value(&key, &value).unwrap_or_else(|error| refused(&error));
            }
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config, "case {case}");
            taken
        });
    }
}
