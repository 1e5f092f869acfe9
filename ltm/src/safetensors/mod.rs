//! The safetensors format: a JSON header, then named tensors. The crate `safetensors` reads it and refuses overlaps,
//! gaps and unused bytes. It accepts duplicate names; a check here refuses them.
//!
//! ```text
//! 8 bytes   length n of the header, little-endian
//! n bytes   JSON: {"__metadata__": {string: string}, name: {"dtype": …, "shape": […], "data_offsets": [begin, end]}, …}
//! the rest  the tensors' bytes, row-major, little-endian; offsets count from here
//! ```

#[cfg(test)]
mod tests;

pub use ::safetensors::Dtype;
pub use ::safetensors::tensor::TensorInfo;

use ::safetensors::tensor::Metadata;
use engine::{Error, Result, file};
use half::{bf16, f16};
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

// Tensors are written in memory order.
const _: () = assert!(cfg!(target_endian = "little"), "tensor files are little-endian, and so must this machine be");

/// A file of tensors, checked when it is opened.
#[derive(Debug)]
pub struct SafeTensors<'a> {
    bytes: Cow<'a, [u8]>,
    /// Offset of the tensors' bytes.
    data: usize,
    header: Metadata,
}

impl<'a> SafeTensors<'a> {
    /// Reads the file at `path` into memory and checks it.
    ///
    /// # Errors
    /// If it cannot be read or is not a valid file; the message begins with the path.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(file::read(path)?).map_err(|e| e.at(path.display()))
    }

    /// Checks `bytes` as a whole file.
    ///
    /// # Errors
    /// If the file violates the format: a damaged header, duplicate names, a size that does not match type and shape,
    /// tensors that overlap or leave a gap, or extra bytes at the end.
    pub fn parse(bytes: impl Into<Cow<'a, [u8]>>) -> Result<Self> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(Error::new("the file is empty"));
        }
        // An error may quote a name with a line break.
        let invalid = |what: &str| Error::new(format!("safetensors header: {}", what.replace(['\n', '\r'], " ")));
        let (length, header) =
            ::safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| invalid(&e.to_string()))?;
        let data = 8 + length;
        if bytes[8..data].first() != Some(&b'{') {
            return Err(invalid("it must begin with '{'"));
        }
        let mut names = serde_json::Deserializer::from_slice(&bytes[8..data]);
        names.deserialize_map(Names).map_err(|e| invalid(&e.to_string()))?;
        Ok(Self { bytes, data, header })
    }

    /// The tensors' names, in the order of their bytes.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// A metadata string, parsed as `T`.
    ///
    /// # Errors
    /// If there is no such key or its text is not a valid `T`.
    pub fn metadata<T: FromStr>(&self, key: &str) -> Result<T> {
        let text = self.header.metadata().as_ref().and_then(|strings| strings.get(key));
        let text = text.ok_or_else(|| Error::new(format!("the metadata have no {key:?}")))?;
        text.parse().map_err(|_| {
            Error::new(format!("metadata {key:?}: {text:?} is not a valid {}", std::any::type_name::<T>()))
        })
    }

    /// Type and shape of a tensor.
    ///
    /// # Errors
    /// If there is no tensor of that name.
    pub fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.header.info(name).ok_or_else(|| Error::new(format!("there is no tensor {name:?} in the file")))
    }

    /// Checks that a tensor has the expected shape.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn expect_shape(&self, name: &str, shape: &[usize]) -> Result<()> {
        let found = &self.info(name)?.shape;
        if found == shape {
            return Ok(());
        }
        Err(Error::new(format!("tensor {name:?} has shape {found:?}, expected {shape:?}")))
    }

    /// A tensor's bytes as they are in the file, not necessarily aligned.
    ///
    /// # Errors
    /// If there is no tensor of that name.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        let (begin, end) = self.info(name)?.data_offsets;
        Ok(&self.bytes[self.data + begin..self.data + end])
    }

    /// The elements of a tensor of floats of 16, 32 or 64 bits, exactly.
    pub fn get_f64(&self, name: &str) -> Result<Vec<f64>> {
        let bytes = self.bytes(name)?;
        match self.info(name)?.dtype {
            Dtype::F64 => Ok(elements(bytes, f64::from_le_bytes)),
            Dtype::F32 => Ok(elements(bytes, |b| f32::from_le_bytes(b).into())),
            Dtype::BF16 => Ok(elements(bytes, |b| bf16::from_le_bytes(b).into())),
            Dtype::F16 => Ok(elements(bytes, |b| f16::from_le_bytes(b).into())),
            other => Err(Error::new(format!("tensor {name:?} is {other}, expected floats"))),
        }
    }

    /// The elements of a tensor of signed integers of 32 or 64 bits.
    pub fn get_i64(&self, name: &str) -> Result<Vec<i64>> {
        let bytes = self.bytes(name)?;
        match self.info(name)?.dtype {
            Dtype::I64 => Ok(elements(bytes, i64::from_le_bytes)),
            Dtype::I32 => Ok(elements(bytes, |b| i32::from_le_bytes(b).into())),
            other => Err(Error::new(format!("tensor {name:?} is {other}, expected I32 or I64"))),
        }
    }
}

/// Reads the names of an object's entries, which must be unique.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some((name, IgnoredAny)) = map.next_entry::<String, _>()? {
            if let Some(name) = seen.replace(name) {
                return Err(A::Error::custom(format!("{name:?} appears twice")));
            }
        }
        Ok(())
    }
}

/// Every `N` bytes decoded; the reader has checked that the length is a multiple.
fn elements<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&chunk| decode(chunk)).collect()
}

/// A tensor to write: name, shape and elements.
pub type Tensor<'a> = (String, Vec<usize>, &'a [f32]);

/// Writes a file of tensors, sorted by name, so that its bytes depend only on the content. Names must be distinct.
///
/// # Errors
/// Those of `out`, or if a tensor's shape does not match its elements.
pub fn write(out: &mut dyn Write, tensors: &[Tensor<'_>]) -> io::Result<()> {
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|(name, ..)| name);
    let mut begin = 0;
    let entry = |(name, shape, data): &&Tensor<'_>| {
        let end = begin + size_of_val(*data);
        let info = TensorInfo { dtype: Dtype::F32, shape: shape.clone(), data_offsets: (begin, end) };
        begin = end;
        (name.clone(), info)
    };
    let header =
        Metadata::new(None, sorted.iter().map(entry).collect()).map_err(|e| io::Error::other(e.to_string()))?;
    let mut header = serde_json::to_vec(&header)?;
    // Aligns the elements, for programs that map the file into memory.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    sorted.iter().try_for_each(|(_, _, data)| out.write_all(bytemuck::cast_slice(data)))
}
