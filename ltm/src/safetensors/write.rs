use super::{DType, METADATA, byte_count};
use crate::json::Value;
use engine::{Error, Result};
use half::bf16;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The elements of a tensor to write, row-major.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Doubles.
    F64(&'a [f64]),
    /// Singles.
    F32(&'a [f32]),
    /// Upper halves of singles.
    Bf16(&'a [bf16]),
    /// 64-bit integers.
    I64(&'a [i64]),
    /// 32-bit integers.
    I32(&'a [i32]),
    /// 16-bit unsigned integers, e.g. tokens.
    U16(&'a [u16]),
    /// Bytes.
    U8(&'a [u8]),
}

impl<'a> Data<'a> {
    fn dtype(self) -> DType {
        match self {
            Self::F64(_) => DType::F64,
            Self::F32(_) => DType::F32,
            Self::Bf16(_) => DType::Bf16,
            Self::I64(_) => DType::I64,
            Self::I32(_) => DType::I32,
            Self::U16(_) => DType::U16,
            Self::U8(_) => DType::U8,
        }
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Self::F64(x) => bytemuck::cast_slice(x),
            Self::F32(x) => bytemuck::cast_slice(x),
            Self::Bf16(x) => bytemuck::cast_slice(x),
            Self::I64(x) => bytemuck::cast_slice(x),
            Self::I32(x) => bytemuck::cast_slice(x),
            Self::U16(x) => bytemuck::cast_slice(x),
            Self::U8(x) => x,
        }
    }
}

/// Collects borrowed tensors and streams them out.
///
/// Wide elements come first and names are sorted among equals, so the bytes depend on the content alone and every tensor
/// is aligned to its element size (the header is padded to a multiple of 8).
#[derive(Debug, Default)]
pub struct Writer<'a> {
    tensors: BTreeMap<&'a str, (&'a [usize], Data<'a>)>,
    metadata: BTreeMap<&'a str, String>,
}

impl<'a> Writer<'a> {
    /// A file without tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one of the file's own strings.
    pub fn metadata(&mut self, key: &'a str, value: impl ToString) {
        self.metadata.insert(key, value.to_string());
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// If the name is taken or reserved, or `data` has not as many elements as `shape` says.
    pub fn add(&mut self, name: &'a str, shape: &'a [usize], data: Data<'a>) -> Result<()> {
        if name == METADATA {
            return Err(Error::new(format!("{METADATA:?} cannot name a tensor")));
        }
        let (dtype, bytes) = (data.dtype(), data.bytes().len());
        if byte_count(dtype, shape) != Some(bytes) {
            let elements = bytes / dtype.size();
            return Err(Error::new(format!("tensor {name:?} has {elements} elements, which is not shape {shape:?}")));
        }
        if self.tensors.insert(name, (shape, data)).is_some() {
            return Err(Error::new(format!("two tensors are named {name:?}")));
        }
        Ok(())
    }

    /// Writes the whole file to `out`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut in_order: Vec<_> = self.tensors.iter().collect();
        in_order.sort_by_key(|(name, (_, data))| (Reverse(data.dtype().size()), *name));
        let mut entries = Vec::new();
        if !self.metadata.is_empty() {
            let strings = self.metadata.iter().map(|(key, value)| (*key, value.as_str().into()));
            entries.push((METADATA, Value::object(strings)));
        }
        let mut begin = 0;
        for (name, (shape, data)) in &in_order {
            let end = begin + data.bytes().len();
            let entry = [
                ("dtype", data.dtype().to_string().into()),
                ("shape", shape.to_vec().into()),
                ("data_offsets", vec![begin, end].into()),
            ];
            entries.push((name, Value::object(entry)));
            begin = end;
        }
        let mut header = Value::object(entries).to_string();
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        in_order.iter().try_for_each(|(_, (_, data))| out.write_all(data.bytes()))
    }
}
