use super::{DType, MAX_HEADER, METADATA, byte_count};
use crate::json::{self, Value};
use engine::{Error, Result};
use half::{bf16, f16};
use std::{collections::BTreeMap, ops::Range, path::Path};

/// What the header says about a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// How its elements are stored.
    pub dtype: DType,
    /// Its sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where its bytes are, counted from the end of the header.
    range: Range<usize>,
}

/// A checked file of tensors over any bytes: a `Vec<u8>`, a slice, a memory map.
#[derive(Debug)]
pub struct SafeTensors<B> {
    bytes: B,
    data_start: usize,
    tensors: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl SafeTensors<Vec<u8>> {
    /// Reads the file at `path` into memory and checks it.
    ///
    /// # Errors
    /// If it cannot be read or is not a valid file; the message begins with the path.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, &e))?;
        Self::parse(bytes).map_err(|e| e.at(path.display()))
    }
}

impl<B: AsRef<[u8]>> SafeTensors<B> {
    /// Checks `bytes` as a whole file.
    ///
    /// # Errors
    /// On anything that the format or this module's strictness does not allow, with the tensor concerned.
    pub fn parse(bytes: B) -> Result<Self> {
        let file = bytes.as_ref();
        let Some((length, rest)) = file.split_first_chunk::<8>() else {
            return Err(Error::new(format!(
                "{} bytes are too few for a safetensors file, which begins with 8 of length",
                file.len()
            )));
        };
        let length = u64::from_le_bytes(*length);
        if length > rest.len().min(MAX_HEADER) as u64 {
            return Err(Error::new(format!(
                "the safetensors header claims {length} bytes; {} follow, and at most {MAX_HEADER} are allowed",
                rest.len()
            )));
        }
        let (header, data) = rest.split_at(length as usize);
        if header.first() != Some(&b'{') {
            return Err(Error::new("the safetensors header must begin with '{'"));
        }
        let Value::Object(entries) = json::parse(header).map_err(|e| e.at("safetensors header"))? else {
            return Err(Error::new("the safetensors header must be an object"));
        };
        let (mut tensors, mut metadata) = (BTreeMap::new(), BTreeMap::new());
        for (name, entry) in entries {
            if name == METADATA {
                metadata = read_metadata(&entry).map_err(|e| e.at(METADATA))?;
            } else {
                let info = read_info(&entry).map_err(|e| e.at(format!("tensor {name:?}")))?;
                tensors.insert(name, info);
            }
        }
        check_coverage(&tensors, data.len())?;
        Ok(Self { data_start: file.len() - data.len(), bytes, tensors, metadata })
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The file's own strings.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// One of the file's own strings, read as a number or whatever `T` is.
    ///
    /// # Errors
    /// If there is no such key or its text is no `T`.
    pub fn metadata_value<T: std::str::FromStr>(&self, key: &str) -> Result<T> {
        let text = self.metadata.get(key).ok_or_else(|| Error::new(format!("the metadata have no {key:?}")))?;
        text.parse().map_err(|_| {
            Error::new(format!("metadata {key:?}: {text:?} is not a valid {}", std::any::type_name::<T>()))
        })
    }

    /// Type and shape of a tensor.
    ///
    /// # Errors
    /// If there is no tensor of that name.
    pub fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| Error::new(format!("there is no tensor {name:?} in the file")))
    }

    /// That a tensor has the shape that the caller's model gives it.
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
        let range = &self.info(name)?.range;
        Ok(&self.bytes.as_ref()[self.data_start..][range.clone()])
    }

    /// The elements of a tensor of any float type, exactly.
    ///
    /// # Errors
    /// If there is no such tensor or its elements are not floats.
    pub fn get_f64(&self, name: &str) -> Result<Vec<f64>> {
        self.floats(name, |x| x, f64::from, f64::from, f64::from)
    }

    /// The elements of a tensor of any float type; those of an F64 tensor are rounded to the nearest f32.
    ///
    /// # Errors
    /// If there is no such tensor or its elements are not floats.
    pub fn get_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.floats(name, |x| x as f32, |x| x, f32::from, f32::from)
    }

    /// The elements of a tensor of any integer type.
    ///
    /// # Errors
    /// If there is no such tensor, its elements are not integers, or one of them is beyond an i64.
    pub fn get_i64(&self, name: &str) -> Result<Vec<i64>> {
        let bytes = self.bytes(name)?;
        Ok(match self.info(name)?.dtype {
            DType::I64 => elements(bytes, i64::from_le_bytes),
            DType::I32 => elements(bytes, |b| i32::from_le_bytes(b).into()),
            DType::I16 => elements(bytes, |b| i16::from_le_bytes(b).into()),
            DType::I8 => elements(bytes, |b| i8::from_le_bytes(b).into()),
            DType::U32 => elements(bytes, |b| u32::from_le_bytes(b).into()),
            DType::U16 => elements(bytes, |b| u16::from_le_bytes(b).into()),
            DType::U8 => elements(bytes, |b| u8::from_le_bytes(b).into()),
            DType::U64 => {
                let wide = elements(bytes, u64::from_le_bytes);
                let narrow: Option<Vec<i64>> = wide.into_iter().map(|x| x.try_into().ok()).collect();
                narrow.ok_or_else(|| Error::new(format!("tensor {name:?} holds a U64 beyond 2^63 - 1")))?
            }
            other @ (DType::F64 | DType::F32 | DType::Bf16 | DType::F16 | DType::Bool) => {
                return Err(Error::new(format!("tensor {name:?} is {other}, expected integers")));
            }
        })
    }

    fn floats<T>(
        &self,
        name: &str,
        double: impl Fn(f64) -> T,
        single: impl Fn(f32) -> T,
        brain: impl Fn(bf16) -> T,
        half: impl Fn(f16) -> T,
    ) -> Result<Vec<T>> {
        let bytes = self.bytes(name)?;
        match self.info(name)?.dtype {
            DType::F64 => Ok(elements(bytes, |b| double(f64::from_le_bytes(b)))),
            DType::F32 => Ok(elements(bytes, |b| single(f32::from_le_bytes(b)))),
            DType::Bf16 => Ok(elements(bytes, |b| brain(bf16::from_le_bytes(b)))),
            DType::F16 => Ok(elements(bytes, |b| half(f16::from_le_bytes(b)))),
            other => Err(Error::new(format!("tensor {name:?} is {other}, expected floats"))),
        }
    }
}

/// Every `N` bytes decoded; the reader has checked that the length is a multiple.
fn elements<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&chunk| decode(chunk)).collect()
}

fn read_metadata(entry: &Value) -> Result<BTreeMap<String, String>> {
    let pairs = entry.as_object()?.iter();
    pairs.map(|(key, _)| Ok((key.clone(), entry.read(key, Value::as_str)?.to_owned()))).collect()
}

fn read_info(entry: &Value) -> Result<TensorInfo> {
    let dtype = entry.read("dtype", Value::as_str)?;
    let dtype = DType::from_name(dtype).ok_or_else(|| {
        let known: Vec<&str> = DType::NAMES.iter().map(|(_, name)| *name).collect();
        Error::new(format!("unknown dtype {dtype:?}, expected one of {}", known.join(", ")))
    })?;
    let integers = |key| entry.read(key, |v| v.as_array()?.iter().map(Value::as_usize).collect::<Result<Vec<_>>>());
    let (shape, offsets) = (integers("shape")?, integers("data_offsets")?);
    if let Some((key, _)) =
        entry.as_object()?.iter().find(|(k, _)| !["dtype", "shape", "data_offsets"].contains(&k.as_str()))
    {
        return Err(Error::new(format!("unknown key {key:?}, expected dtype, shape and data_offsets only")));
    }
    let [begin, end] = offsets[..] else {
        return Err(Error::new(format!("data_offsets has {} numbers, expected begin and end", offsets.len())));
    };
    let spanned = end
        .checked_sub(begin)
        .ok_or_else(|| Error::new(format!("data_offsets end ({end}) before they begin ({begin})")))?;
    if byte_count(dtype, &shape) != Some(spanned) {
        return Err(Error::new(format!(
            "{dtype} of shape {shape:?} does not take the {spanned} bytes from {begin} to {end}"
        )));
    }
    Ok(TensorInfo { dtype, shape, range: begin..end })
}

/// That the tensors, in the order of their offsets, cover `available` bytes without gap or overlap.
fn check_coverage(tensors: &BTreeMap<String, TensorInfo>, available: usize) -> Result<()> {
    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(_, info)| (info.range.start, info.range.end));
    let mut covered = 0;
    for (name, info) in in_order {
        let Range { start, end } = info.range;
        if start != covered {
            let fault = if start < covered { "overlaps another tensor" } else { "leaves a gap before it" };
            return Err(Error::new(format!("tensor {name:?} {fault}: it begins at {start}, expected {covered}")));
        }
        if end > available {
            return Err(Error::new(format!(
                "tensor {name:?} ends at byte {end} of the data, but the file has only {available}"
            )));
        }
        covered = end;
    }
    if covered != available {
        return Err(Error::new(format!("{} trailing bytes belong to no tensor", available - covered)));
    }
    Ok(())
}
