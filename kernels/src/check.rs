//! Names of arguments, and checks for `infer`: their errors say which argument is wrong and what would be right.

use engine::{DType, Error, Result, Spec};

/// Returns an error unless the condition holds.
pub fn that(holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::usage(message())) }
}

/// Argument `name` has exactly these sizes and element type.
pub fn is(name: &str, got: Spec, dtype: DType, dims: &[usize]) -> Result<()> {
    let want = Spec::new(dtype, dims);
    that(got == want, || format!("{name} is {got}, must be {want}"))
}

/// Argument `name` holds floats.
pub fn real(name: &str, got: Spec) -> Result<DType> {
    that(got.dtype.is_float(), || format!("{name} is {got}, must hold floats"))?;
    Ok(got.dtype)
}

/// Argument `name` has this many dimensions.
pub fn rank(name: &str, got: Spec, rank: usize) -> Result<()> {
    that(got.shape.rank() == rank, || format!("{name} is {got}, must have {rank} dimensions"))
}

/// The rows of argument `name` are `heads` heads side by side; returns the width of a head.
pub fn heads(name: &str, got: Spec, heads: usize) -> Result<usize> {
    let width = got.shape.last();
    that(heads > 0 && width > 0 && width.is_multiple_of(heads), || {
        format!("{name} is {got}, its last size must be a multiple of {heads} heads")
    })?;
    Ok(width / heads)
}

/// The type of sums and statistics over elements of `dtype`.
pub fn statistic(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// An op's name, and the names of its inputs.
macro_rules! names {
    ($name:literal: $($argument:ident),*) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn arguments(&self) -> &'static [&'static str] {
            &[$(stringify!($argument)),*]
        }
    };
}

pub(crate) use names;
