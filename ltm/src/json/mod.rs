//! Strict JSON (RFC 8259): configurations, safetensors headers, metrics, corpora, `--json` output.
//!
//! Strict means: UTF-8 only, no duplicate keys, no lone surrogates, no numbers beyond f64, nothing after the value, nesting
//! of at most [`MAX_DEPTH`]. Numbers are f64, so integers are exact up to 2⁵³; the integer accessors refuse those beyond
//! instead of rounding. Objects keep the order of their keys: what is written reads as it was built.
//!
//! ```
//! use ltm::json::{self, Value};
//!
//! let line = json::parse(r#"{"step": 3, "loss": 1.25}"#)?;
//! assert_eq!(line.read("step", Value::as_u64)?, 3);
//! assert_eq!(Value::object([("loss", line.field("loss")?.clone())]).to_string(), r#"{"loss":1.25}"#);
//! assert!(json::parse(r#"{"step": 3, "step": 4}"#).is_err(), "a key twice");
//! # Ok::<(), engine::Error>(())
//! ```

mod parse;
mod records;
mod write;

pub use parse::{MAX_DEPTH, parse};
pub use records::{Lines, finite_or_null, from_bytes, line, pretty, read, read_lines};

use engine::{Error, Result};

/// A serialisable value as a [`Value`].
///
/// # Errors
/// If it has no JSON form.
pub fn from_serde(value: &impl serde::Serialize) -> Result<Value> {
    parse(serde_json::to_string(value).map_err(|e| Error::new(e.to_string()))?)
}

/// The reverse of [`from_serde`].
///
/// # Errors
/// If the value does not fit the type.
pub fn to_serde<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_str(&value.to_string()).map_err(|e| Error::new(e.to_string()))
}

/// The largest integer that the accessors and the writer take for one: 2⁵³ − 1. Beyond, what reads as an integer may
/// have been rounded from another one.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`; also what a number that is not finite is written as.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number.
    Number(f64),
    /// Text.
    String(String),
    /// Values in order.
    Array(Vec<Value>),
    /// Keys, each at most once, with their values, in order.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// `Value::object([("step", 3.into()), ("loss", loss.into())])`. The caller keeps the keys distinct.
    pub fn object<K: Into<String>>(entries: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Object(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// The value of `key`, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Object(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// If this is not an object or has no such key.
    pub fn field(&self, key: &str) -> Result<&Value> {
        self.as_object()?;
        self.get(key).ok_or_else(|| Error::new(format!("the key {key:?} is missing")))
    }

    /// `field(key)` and then `read`, with the key in front of its error: `v.read("step", Value::as_u64)?`.
    ///
    /// # Errors
    /// If the key is missing or `read` fails.
    pub fn read<'a, T>(&'a self, key: &str, read: impl FnOnce(&'a Value) -> Result<T>) -> Result<T> {
        read(self.field(key)?).map_err(|e| e.at(key.escape_debug()))
    }

    /// The truth value.
    ///
    /// # Errors
    /// If this is not a boolean.
    pub fn as_bool(&self) -> Result<bool> {
        if let Self::Bool(x) = self { Ok(*x) } else { Err(self.is_not("true or false")) }
    }

    /// The number.
    ///
    /// # Errors
    /// If this is not a number.
    pub fn as_f64(&self) -> Result<f64> {
        if let Self::Number(x) = self { Ok(*x) } else { Err(self.is_not("a number")) }
    }

    /// The number as a signed integer.
    ///
    /// # Errors
    /// If this is not an integer of magnitude below 2⁵³.
    pub fn as_i64(&self) -> Result<i64> {
        match self {
            Self::Number(x) if x.fract() == 0.0 && x.abs() <= MAX_INTEGER as f64 => Ok(*x as i64),
            _ => Err(self.is_not("an integer between -2^53 and 2^53")),
        }
    }

    /// The number as an unsigned integer.
    ///
    /// # Errors
    /// If this is not an integer of 0 or more, below 2⁵³.
    pub fn as_u64(&self) -> Result<u64> {
        self.as_i64()
            .ok()
            .and_then(|x| u64::try_from(x).ok())
            .ok_or_else(|| self.is_not("an integer of 0 or more, below 2^53"))
    }

    /// The number as a size.
    ///
    /// # Errors
    /// If this is not an integer of 0 or more, below 2⁵³, or too large for this machine's addresses.
    pub fn as_usize(&self) -> Result<usize> {
        usize::try_from(self.as_u64()?).map_err(|_| self.is_not("an integer that fits an address"))
    }

    /// The text.
    ///
    /// # Errors
    /// If this is not a string.
    pub fn as_str(&self) -> Result<&str> {
        if let Self::String(x) = self { Ok(x) } else { Err(self.is_not("a string")) }
    }

    /// The items in order.
    ///
    /// # Errors
    /// If this is not an array.
    pub fn as_array(&self) -> Result<&[Value]> {
        if let Self::Array(x) = self { Ok(x) } else { Err(self.is_not("an array")) }
    }

    /// The keys and values in order.
    ///
    /// # Errors
    /// If this is not an object.
    pub fn as_object(&self) -> Result<&[(String, Value)]> {
        if let Self::Object(x) = self { Ok(x) } else { Err(self.is_not("an object")) }
    }

    fn is_not(&self, expected: &str) -> Error {
        let found = match self {
            Self::Null => "null".into(),
            Self::Bool(x) => x.to_string(),
            Self::Number(_) => format!("the number {self}"),
            Self::String(_) => "a string".into(),
            Self::Array(_) => "an array".into(),
            Self::Object(_) => "an object".into(),
        };
        Error::new(format!("expected {expected}, found {found}"))
    }
}

/// For files that still hold such values.
impl<'de> serde::Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        from_serde(&value).map_err(serde::de::Error::custom)
    }
}

/// For files that still hold such values.
impl serde::Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let integer = |x: f64| x.fract() == 0.0 && x.abs() <= MAX_INTEGER as f64;
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(x) => serializer.serialize_bool(*x),
            Self::Number(x) if integer(*x) => serializer.serialize_i64(*x as i64),
            Self::Number(x) => serializer.serialize_f64(*x),
            Self::String(x) => serializer.serialize_str(x),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(entries) => serializer.collect_map(entries.iter().map(|(key, value)| (key, value))),
        }
    }
}

impl From<bool> for Value {
    fn from(x: bool) -> Self {
        Self::Bool(x)
    }
}
impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Self::Number(x)
    }
}
impl From<i32> for Value {
    fn from(x: i32) -> Self {
        Self::Number(f64::from(x))
    }
}
impl From<u64> for Value {
    /// Exact up to 2⁵³, rounded beyond.
    fn from(x: u64) -> Self {
        Self::Number(x as f64)
    }
}
impl From<usize> for Value {
    /// Exact up to 2⁵³, rounded beyond.
    fn from(x: usize) -> Self {
        Self::Number(x as f64)
    }
}
impl From<&str> for Value {
    fn from(x: &str) -> Self {
        Self::String(x.into())
    }
}
impl From<String> for Value {
    fn from(x: String) -> Self {
        Self::String(x)
    }
}
impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accessors_read_and_say_what_is_wrong() {
        let v =
            parse(r#"{"steps": 16, "rate": 0.3, "name": "x", "on": true, "shape": [2, 3], "big": 9007199254740993}"#)
                .unwrap();
        assert_eq!(v.read("steps", Value::as_u64).unwrap(), 16);
        assert_eq!(v.read("rate", Value::as_f64).unwrap(), 0.3);
        assert_eq!(v.read("name", Value::as_str).unwrap(), "x");
        assert!(v.read("on", Value::as_bool).unwrap());
        assert_eq!(v.read("shape", Value::as_array).unwrap().len(), 2);
        assert!(v.get("none").is_none() && Value::Null.get("none").is_none());
        let error = |e: Result<u64>| e.unwrap_err().to_string();
        assert_eq!(
            error(v.read("rate", Value::as_u64)),
            "rate: expected an integer of 0 or more, below 2^53, found the number 0.3"
        );
        assert_eq!(error(v.read("none", Value::as_u64)), "the key \"none\" is missing");
        assert_eq!(
            error(v.read("name", Value::as_u64)),
            "name: expected an integer of 0 or more, below 2^53, found a string"
        );
        assert!(v.read("big", Value::as_u64).is_err());
        assert!(Value::from(-1).as_u64().is_err() && Value::from(-1).as_i64() == Ok(-1));
    }
}
