//! What the ops' `infer` have in common: errors that say which argument is wrong and what would be right.

use engine::{DType, Error, Result, Spec};

/// The inputs are as many as the op's arguments.
pub fn count(arguments: &[&str], ins: &[Spec]) -> Result<()> {
    if ins.len() == arguments.len() {
        return Ok(());
    }
    Err(Error::usage(format!("takes {} inputs ({}), got {}", arguments.len(), arguments.join(", "), ins.len())))
}

/// Argument `name` has exactly these sizes and element type.
pub fn is(name: &str, got: Spec, dtype: DType, dims: &[usize]) -> Result<()> {
    let want = Spec::new(dtype, dims);
    if got == want { Ok(()) } else { Err(Error::usage(format!("{name} is {got}, must be {want}"))) }
}

/// Argument `name` holds f32 or f64.
pub fn real(name: &str, got: Spec) -> Result<DType> {
    match got.dtype {
        DType::F32 | DType::F64 | DType::Bf16 => Ok(got.dtype),
        DType::I32 => Err(Error::usage(format!("{name} is {got}, must hold floats"))),
    }
}

/// Argument `name` has this many dimensions.
pub fn rank(name: &str, got: Spec, rank: usize) -> Result<()> {
    if got.shape.rank() == rank {
        return Ok(());
    }
    Err(Error::usage(format!("{name} is {got}, must have {rank} dimensions")))
}

/// The rows of argument `name` are `heads` heads side by side; returns the width of one.
pub fn heads(name: &str, got: Spec, heads: usize) -> Result<usize> {
    let width = got.shape.last();
    if heads > 0 && width > 0 && width.is_multiple_of(heads) {
        return Ok(width / heads);
    }
    Err(Error::usage(format!("{name} is {got}, its last size must be a multiple of {heads} heads")))
}

/// The type in which sums and statistics over elements of `dtype` are kept.
pub fn statistic(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}
