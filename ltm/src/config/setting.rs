use super::table::SETTINGS;
use super::{Choice, Config, nearest};
use engine::{Error, Result};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A row of the table of settings.
pub struct Setting {
    /// The key, `section.name`.
    pub name: &'static str,
    pub(super) doc: &'static str,
    /// At most one.
    pub(super) ranges: &'static [Range],
    pub(super) field: fn(&Config) -> &dyn Field,
    pub(super) field_mut: fn(&mut Config) -> &mut dyn Field,
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
    /// What it means, in a sentence.
    pub fn doc(&self) -> &'static str {
        self.doc.trim()
    }

    /// What values it takes, e.g. `one of fresh, fixed`.
    pub fn expects(&self) -> String {
        (self.field)(&Config::default()).expects()
    }

    /// Its value in a configuration, as JSON.
    pub fn value(&self, config: &Config) -> Value {
        (self.field)(config).value()
    }

    /// Whether a number is in its range.
    fn check(&self, config: &Config) -> Result<()> {
        let Some(x) = (self.field)(config).number() else { return Ok(()) };
        match self.ranges.iter().find(|range| !range.contains(x)) {
            Some(range) => Err(Error::usage(format!("{} = {x}: must be {range}", self.name))),
            None => Ok(()),
        }
    }

    fn find(name: &str) -> Result<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name).ok_or_else(|| {
            let near = nearest(name, SETTINGS.iter().map(|setting| setting.name));
            Error::usage(format!("unknown key {name:?}, did you mean {near:?}?"))
        })
    }

    fn assign(&self, config: &mut Config, value: &Value) -> Result<()> {
        let field = (self.field_mut)(config);
        if field.assign(value) {
            return Ok(());
        }
        Err(Error::usage(format!("{} = {value}: expected {}", self.name, field.expects())))
    }
}

impl Config {
    /// Every setting, section by section.
    pub fn settings() -> &'static [Setting] {
        SETTINGS
    }

    /// Sets a key from text, as on a command line: `set("fast.steps", "16")`.
    ///
    /// # Errors
    /// A usage error: an unknown key with the nearest one, or what the key expects.
    pub fn set(&mut self, key: &str, text: &str) -> Result<()> {
        let setting = Setting::find(key)?;
        // A number or a list, else the text itself. Not every number that people write is JSON: `.5`.
        let number = || text.trim().parse().ok().and_then(Number::from_f64).map(Value::Number);
        match serde_json::from_str(text).ok().or_else(number) {
            Some(value) if (setting.field_mut)(self).assign(&value) => Ok(()),
            _ => setting.assign(self, &text.into()),
        }
    }

    /// Sets a key from a typed value, as in a file.
    ///
    /// # Errors
    /// As [`Config::set`].
    pub fn set_value(&mut self, key: &str, value: &Value) -> Result<()> {
        Setting::find(key)?.assign(self, value)
    }

    /// The value of a key, as JSON.
    ///
    /// # Errors
    /// A usage error if there is no such key.
    pub fn get(&self, key: &str) -> Result<Value> {
        Setting::find(key).map(|setting| setting.value(self))
    }

    /// Every number is in its range, whatever the others are. The upper limits keep products of sizes within an address.
    ///
    /// # Errors
    /// A usage error naming the key and its range.
    pub fn check_ranges(&self) -> Result<()> {
        SETTINGS.iter().try_for_each(|setting| setting.check(self))
    }
}

/// Settings that no longer exist, and the only value, as JSON, with which a file may still name them.
const RETIRED: &[(&str, &str)] = &[("fast.hoist", "\"on\""), ("fast.head_filter", "0")];

/// Reads what `Serialize` writes: an object per section. A missing key keeps its default and a retired key is skipped, so
/// that old files stay readable.
impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut config = Self::default();
        for (section, settings) in BTreeMap::<String, Value>::deserialize(deserializer)? {
            let settings = match settings {
                Value::Object(settings) => settings,
                _ => Map::from_iter([(String::new(), settings)]),
            };
            for (name, value) in settings {
                let key = if name.is_empty() { section.clone() } else { format!("{section}.{name}") };
                match RETIRED.iter().find(|(retired, _)| *retired == key) {
                    None => config.set_value(&key, &value).map_err(D::Error::custom)?,
                    Some((_, only)) if serde_json::from_str(only).is_ok_and(|only: Value| only == value) => {}
                    Some((_, only)) => {
                        let message = format!("{key} = {value} is no longer supported: {key} is always {only}");
                        return Err(D::Error::custom(message));
                    }
                }
            }
        }
        Ok(config)
    }
}

/// A value that a setting can have.
pub(super) trait Field {
    /// What values it takes, to follow "expected".
    fn expects(&self) -> String;

    /// Takes `value`, or is left alone and returns false.
    fn assign(&mut self, value: &Value) -> bool;

    /// What [`Field::assign`] would take to set it to what it is.
    fn value(&self) -> Value;

    /// The value, if it is a number.
    fn number(&self) -> Option<f64> {
        None
    }
}

/// Puts `value` into `field`, if there is one.
fn put<T>(field: &mut T, value: Option<T>) -> bool {
    let taken = value.is_some();
    value.into_iter().for_each(|value| *field = value);
    taken
}

impl Field for u64 {
    fn expects(&self) -> String {
        "an integer of 0 or more".into()
    }

    fn assign(&mut self, value: &Value) -> bool {
        // 1e3 is an integer as well.
        let whole = |x: &f64| x.fract() == 0.0 && (0.0..9e15).contains(x);
        put(self, value.as_u64().or_else(|| value.as_f64().filter(whole).map(|x| x as u64)))
    }

    fn value(&self) -> Value {
        (*self).into()
    }

    fn number(&self) -> Option<f64> {
        Some(*self as f64)
    }
}

impl Field for usize {
    fn expects(&self) -> String {
        0u64.expects()
    }

    fn assign(&mut self, value: &Value) -> bool {
        let mut number = 0u64;
        number.assign(value) && put(self, number.try_into().ok())
    }

    fn value(&self) -> Value {
        (*self).into()
    }

    fn number(&self) -> Option<f64> {
        Some(*self as f64)
    }
}

impl Field for f64 {
    fn expects(&self) -> String {
        "a finite number".into()
    }

    fn assign(&mut self, value: &Value) -> bool {
        put(self, value.as_f64().filter(|x| x.is_finite()))
    }

    fn value(&self) -> Value {
        (*self).into()
    }

    fn number(&self) -> Option<f64> {
        Some(*self)
    }
}

impl<T: Choice> Field for T {
    fn expects(&self) -> String {
        format!("one of {}", T::ALL.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", "))
    }

    fn assign(&mut self, value: &Value) -> bool {
        put(self, value.as_str().and_then(T::named))
    }

    fn value(&self) -> Value {
        self.name().into()
    }
}

impl Field for Option<PathBuf> {
    fn expects(&self) -> String {
        "a path, or nothing".into()
    }

    fn assign(&mut self, value: &Value) -> bool {
        let path = |text: &str| (!text.is_empty()).then(|| text.into());
        put(self, if value.is_null() { Some(None) } else { value.as_str().map(path) })
    }

    fn value(&self) -> Value {
        self.as_ref().map(|path| path.display().to_string()).into()
    }
}

impl Field for Vec<PathBuf> {
    fn expects(&self) -> String {
        "a path, or a list of paths such as [\"a.txt\", \"b.txt\"]".into()
    }

    fn assign(&mut self, value: &Value) -> bool {
        let paths = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter();
        let path = |item: &Value| item.as_str().filter(|path| !path.is_empty()).map(PathBuf::from);
        put(self, paths.map(path).collect())
    }

    fn value(&self) -> Value {
        self.iter().map(|path| path.display().to_string()).collect()
    }
}
