use half::bf16;
use std::fmt;

/// Element types that a buffer can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision: storage and arithmetic on the CPU.
    F32,
    /// IEEE double precision: gradient checks and golden numbers.
    F64,
    /// The upper half of an f32: storage on the GPU.
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

    /// Whether a gradient with respect to such a value makes sense.
    pub const fn is_float(self) -> bool {
        !matches!(self, Self::I32)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
            Self::I32 => "i32",
        })
    }
}

/// A Rust type that a buffer can be viewed as.
pub trait Element: bytemuck::Pod + Send + Sync + PartialEq + fmt::Debug + 'static {
    /// Its tag.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for f64 {
    const DTYPE: DType = DType::F64;
}
impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}

/// Runs an expression with `$T` standing for f32 or f64, whichever `$dtype` says: the CPU's two number types share one
/// generic code.
///
/// # Panics
/// On any other type: the CPU computes in no other.
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
