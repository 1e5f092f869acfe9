//! The safetensors format: named tensors behind a JSON header.
//!
//! ```text
//! 8 bytes   length n of the header, little-endian
//! n bytes   JSON: {"__metadata__": {string: string}, name: {"dtype": …, "shape": […], "data_offsets": [begin, end]}, …}
//! the rest  the tensors' bytes, row-major, little-endian; offsets count from here
//! ```
//!
//! [`SafeTensors`] reads it strictly: a file is accepted only if every byte of it is accounted for exactly once. Offsets
//! leave no gap, do not overlap and end where the file ends; a tensor's size is what its type and shape say; names and
//! keys appear once; no length field makes the reader allocate before the bytes behind it are known to exist.
//! [`Writer`] streams tensors from where they lie and gives the same bytes for the same content.
//!
//! ```
//! use ltm::safetensors::{Data, SafeTensors, Writer};
//!
//! let mut writer = Writer::new();
//! writer.metadata("format", "pt");
//! writer.add("gain", &[2], Data::F32(&[1.0, 0.5]))?;
//! let mut bytes = Vec::new();
//! writer.write(&mut bytes).expect("memory");
//!
//! let file = SafeTensors::parse(&bytes[..])?;
//! assert_eq!((file.get_f32("gain")?, &file.info("gain")?.shape[..]), (vec![1.0, 0.5], &[2][..]));
//! bytes.push(0);
//! assert!(SafeTensors::parse(&bytes[..]).is_err(), "a byte too many");
//! # Ok::<(), engine::Error>(())
//! ```

mod read;
mod write;

pub use read::{SafeTensors, TensorInfo};
pub use write::{Data, Writer};

use std::fmt;

// The writer hands out the memory of a slice as it is.
const _: () = assert!(cfg!(target_endian = "little"), "tensor files are little-endian, and so must this machine be");

/// Longest header accepted, in bytes: far more than any model needs, little enough to parse at once.
const MAX_HEADER: usize = 16 << 20;

/// The header's key for the file's own strings, which therefore cannot name a tensor.
const METADATA: &str = "__metadata__";

/// How the elements of a tensor are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    /// IEEE double precision.
    F64,
    /// IEEE single precision.
    F32,
    /// The upper half of an f32.
    Bf16,
    /// IEEE half precision.
    F16,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 64 bits.
    U64,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 8 bits.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// Every type with its name in the header.
    const NAMES: [(Self, &'static str); 13] = [
        (Self::F64, "F64"),
        (Self::F32, "F32"),
        (Self::Bf16, "BF16"),
        (Self::F16, "F16"),
        (Self::I64, "I64"),
        (Self::I32, "I32"),
        (Self::I16, "I16"),
        (Self::I8, "I8"),
        (Self::U64, "U64"),
        (Self::U32, "U32"),
        (Self::U16, "U16"),
        (Self::U8, "U8"),
        (Self::Bool, "BOOL"),
    ];

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::Bf16 | Self::F16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, n)| *n == name).map(|(dtype, _)| *dtype)
    }
}

/// The name in the header, e.g. `BF16`.
impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Self::NAMES.iter().find(|(dtype, _)| dtype == self).ok_or(fmt::Error)?;
        f.write_str(name)
    }
}

/// Bytes that a tensor of this type and shape takes; `None` beyond what an address can count.
fn byte_count(dtype: DType, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(dtype.size(), |bytes, &dim| bytes.checked_mul(dim))
}

#[cfg(test)]
mod tests;
