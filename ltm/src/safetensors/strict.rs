//! What the crate `safetensors` lets pass: of a name that appears twice it takes the last, and keys that it does not know it
//! skips. Overlaps, gaps and bytes that belong to no tensor it refuses itself.

use engine::{Error, Result};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

/// Checks the header, which is valid otherwise.
pub(super) fn check(header: &[u8]) -> Result<()> {
    if header.first() != Some(&b'{') {
        return Err(Error::new("it must begin with '{'"));
    }
    serde_json::from_slice::<Unique<Entry>>(header).map(|_| ()).map_err(|e| Error::new(e.to_string()))
}

/// A tensor, or the file's own strings.
#[derive(Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is only checked that they can be read")]
enum Entry {
    Tensor(Info),
    Strings(Unique<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it is only checked that they can be read")]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// An object in which every key appears once.
struct Unique<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Self(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Unique<T> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some((key, _)) = map.next_entry::<String, T>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom(format!("{key:?} appears twice")));
            }
            seen.insert(key);
        }
        Ok(self)
    }
}
