use super::nearest::near_keys;
use super::table::SETTINGS;
use super::{Choice, Config};
use crate::diffusion;
use engine::{Error, Result};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::{Map, Number, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A row of the table of settings.
pub struct Setting {
    /// The key, `section.name`.
    pub name: &'static str,
    /// What it means, in a sentence.
    pub doc: &'static str,
    /// At most one.
    pub(super) ranges: &'static [Range],
    /// The values that it takes, e.g. `one of fresh, fixed`.
    pub expects: fn() -> String,
    pub(super) get: fn(&Config) -> Value,
    /// Takes the value, or changes nothing and returns false.
    pub(super) put: fn(&mut Config, Value) -> bool,
}

/// The numbers that a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// From the first to the second.
    Within(f64, f64),
    /// This or more.
    AtLeast(f64),
    /// More than this.
    MoreThan(f64),
    /// At least 0 and less than 1.
    Fraction,
}

impl Range {
    /// Infinite numbers and NaN are in no range.
    fn contains(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Self::Within(least, most) => (least..=most).contains(&x),
                Self::AtLeast(least) => x >= least,
                Self::MoreThan(bound) => x > bound,
                Self::Fraction => (0.0..1.0).contains(&x),
            }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Within(least, most) => write!(f, "from {least} to {most}"),
            Self::AtLeast(least) => write!(f, "{least} or more"),
            Self::MoreThan(bound) => write!(f, "more than {bound}"),
            Self::Fraction => f.write_str("at least 0 and less than 1"),
        }
    }
}

impl Setting {
    /// Its value in a configuration, as JSON; null for a path that is not UTF-8.
    pub fn value(&self, config: &Config) -> Value {
        (self.get)(config)
    }

    /// The values that it takes, e.g. `an integer, from 1 to 1024`.
    pub fn takes(&self) -> String {
        let kind = if self.value(&Config::default()).is_f64() { "a number" } else { "an integer" };
        self.ranges.first().map_or_else(self.expects, |range| format!("{kind}, {range}"))
    }

    fn find(name: &str) -> Result<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name).ok_or_else(|| {
            let keys: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            let mut sections: Vec<_> =
                keys.iter().filter_map(|key| key.rsplit_once('.')).map(|(path, _)| path).collect();
            sections.dedup();
            if let Some(section) = sections.iter().find(|section| **section == name.trim_end_matches('.')) {
                return Error::usage(format!("{section} is a section: name one of its keys, see `ltm help settings`"));
            }
            let near: Vec<_> = near_keys(name, &keys).iter().map(|key| format!("{key:?}")).collect();
            if near.is_empty() {
                return Error::usage(format!("unknown key {name:?}; keys begin with {}", sections.join(", ")));
            }
            Error::usage(format!("unknown key {name:?}, did you mean {}?", near.join(" or ")))
        })
    }

    /// Sets `value` from any usual notation: 1e3 is an integer, a single path a list, and an empty path none.
    fn take(&self, config: &mut Config, value: &Value) -> bool {
        let whole = value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..9e15).contains(x)).map(|x| json!(x as u64));
        let plain = if value == "" { Value::Null } else { value.clone() };
        let list = plain.is_string().then(|| json!([plain]));
        [Some(plain), whole, list].into_iter().flatten().any(|value| (self.put)(config, value))
    }

    fn assign(&self, config: &mut Config, value: &Value) -> Result<()> {
        if self.take(config, value) {
            return Ok(());
        }
        // A file stores non-finite numbers as null.
        let found = if value.is_null() { " is null, NaN or infinite".into() } else { format!(" = {value}") };
        Err(Error::usage(format!("{}{found}: expected {}", self.name, (self.expects)())))
    }
}

impl Config {
    /// Sets a key from text, as on a command line: `set("fast.steps", "16")`.
    ///
    /// # Errors
    /// A usage error: an unknown key with the nearest one, or an invalid value with the expected ones.
    pub fn set(&mut self, key: &str, text: &str) -> Result<()> {
        let setting = Setting::find(key)?;
        // A number or a list, else the text itself. Not every number that people write is JSON: `.5`.
        let number = || text.trim().parse().ok().and_then(Number::from_f64).map(Value::Number);
        match serde_json::from_str(text).ok().or_else(number) {
            Some(list @ Value::Array(_)) => setting.assign(self, &list),
            Some(value) if setting.take(self, &value) => Ok(()),
            _ => setting.assign(self, &text.into()),
        }
    }

    /// Sets a key from a typed value, as in a file.
    pub fn set_value(&mut self, key: &str, value: &Value) -> Result<()> {
        Setting::find(key)?.assign(self, value)
    }

    /// Checks that every number is in its range. The upper limits prevent overflow in products of sizes.
    ///
    /// # Errors
    /// A usage error naming the key and its range.
    pub fn check_ranges(&self) -> Result<()> {
        for setting in SETTINGS {
            // JSON has no NaN.
            let x = setting.value(self).as_f64().unwrap_or(f64::NAN);
            if let Some(range) = setting.ranges.iter().find(|range| !range.contains(x)) {
                return Err(Error::usage(format!("{} = {x}: must be {range}", setting.name)));
            }
        }
        Ok(())
    }
}

/// Reads what `Serialize` writes: an object per section. A missing key keeps its default.
impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut config = Self::default();
        let sections = BTreeMap::<String, Map<String, Value>>::deserialize(deserializer)?;
        let mut open: Vec<_> = sections.into_iter().collect();
        while let Some((path, settings)) = open.pop() {
            for (name, value) in settings {
                let key = format!("{path}.{name}");
                match value {
                    // TOML's [data.corpus] is a table in a table.
                    Value::Object(inner) => open.push((key, inner)),
                    value => config.set_value(&key, &value).map_err(D::Error::custom)?,
                }
            }
        }
        Ok(config)
    }
}

/// A type of settings.
pub(super) trait Kind {
    /// The values that it takes, to follow "expected".
    fn expects() -> String;
}

impl<T: Choice> Kind for T {
    fn expects() -> String {
        format!("one of {}", T::ALL.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", "))
    }
}

macro_rules! kinds {
    ($($Type:ty: $words:literal;)+) => {$(
        impl Kind for $Type {
            fn expects() -> String {
                $words.into()
            }
        }
    )+};
}

kinds! {
    u64: "an integer of 0 or more";
    usize: "an integer of 0 or more";
    f64: "a finite number";
    diffusion::Schedule: "linear, cosine, or poly and a power, such as poly2";
    Option<PathBuf>: "a path, or nothing";
    Vec<PathBuf>: "a path, or a list of paths such as [\"a.txt\", \"b.txt\"]";
}
