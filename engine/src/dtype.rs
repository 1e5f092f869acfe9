use half::bf16;
use std::fmt;

/// Element types that a buffer can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision: storage and arithmetic.
    F32,
    /// IEEE double precision: gradient checks and golden numbers.
    F64,
    /// The upper half of an f32: storage on the GPU, and packed factors of products on the CPU.
    Bf16,
    /// Token ids, positions, counters.
    I32,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F64 => 8,
            Self::Bf16 => 2,
        }
    }

    /// Whether a value of this type can have a gradient.
    pub const fn is_float(self) -> bool {
        !matches!(self, Self::I32)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// A Rust type that a buffer's elements can have.
pub trait Element: bytemuck::Pod + Send + Sync + PartialEq + fmt::Debug + 'static {
    /// The type's tag.
    const DTYPE: DType;
}

macro_rules! element {
    ($($type:ty: $tag:ident),*) => { $(impl Element for $type {
        const DTYPE: DType = DType::$tag;
    })* };
}

element!(f32: F32, f64: F64, bf16: Bf16, i32: I32);

/// Evaluates an expression with `$T` as f32 or f64, according to `$dtype`: the CPU's two types share generic code.
///
/// # Panics
/// For any other type.
#[macro_export]
macro_rules! with_real {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            other => panic!("the CPU does not compute in {other}"),
        }
    };
}
