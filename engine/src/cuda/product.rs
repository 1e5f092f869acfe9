use super::Pointer;

/// A factor of a product: a row-major matrix as it lies in memory, rows without gaps.
#[derive(Clone, Copy, Debug)]
pub enum Factor {
    /// The matrix itself.
    Plain(Pointer),
    /// Its transpose.
    Transposed(Pointer),
}

impl Factor {
    /// Where it lies.
    pub fn pointer(&self) -> Pointer {
        match *self {
            Self::Plain(p) | Self::Transposed(p) => p,
        }
    }
}

/// `out = a·b + c`, sums in f32: `a [rows, inner]`, `b [inner, cols]`, `c` and `out [rows, cols]`, row-major.
///
/// Factors share one element type, f32 or bf16; `c` and `out` share one, the factors' or f32. Products of f32 numbers are
/// computed in f32, not rounded to fewer bits.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of `a` and `out`.
    pub rows: usize,
    /// Columns of `b` and `out`.
    pub cols: usize,
    /// What is summed over.
    pub inner: usize,
    /// Left factor.
    pub a: Factor,
    /// Right factor.
    pub b: Factor,
    /// What is added: nothing, a residual, or `out` itself to accumulate.
    pub c: Option<Pointer>,
    /// The result.
    pub out: Pointer,
}
