use super::{Arg, Gpu, Grid, Module, Pointer};
use crate::DType;

/// A factor of a product: a contiguous row-major matrix.
#[derive(Clone, Copy, Debug)]
pub enum Factor {
    /// The matrix itself.
    Plain(Pointer),
    /// Its transpose.
    Transposed(Pointer),
}

impl Factor {
    /// The first element of the matrix in memory.
    pub fn pointer(&self) -> Pointer {
        match *self {
            Self::Plain(p) | Self::Transposed(p) => p,
        }
    }

    /// Whether it is the transpose of the matrix in memory.
    pub fn is_transposed(&self) -> bool {
        matches!(self, Self::Transposed(_))
    }

    /// Strides of rows and columns, if the factor is `[rows, cols]`.
    fn strides(&self, rows: usize, cols: usize) -> [Arg; 2] {
        if self.is_transposed() { [1.into(), rows.into()] } else { [cols.into(), 1.into()] }
    }
}

/// `out = a·b + c`, sums in f32: `a [rows, inner]`, `b [inner, cols]`, `c` and `out [rows, cols]`, row-major.
///
/// The factors have one element type, f32 or bf16. `c` and `out` have one, that of the factors or f32. Products of f32 numbers
/// are computed in f32, without rounding to fewer bits.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of `a` and `out`.
    pub rows: usize,
    /// Columns of `b` and `out`.
    pub cols: usize,
    /// Length of the sums.
    pub inner: usize,
    /// Left factor.
    pub a: Factor,
    /// Right factor.
    pub b: Factor,
    /// The matrix that is added: none, a residual, or `out` itself to accumulate.
    pub c: Option<Pointer>,
    /// The result.
    pub out: Pointer,
}

/// The kernel behind [`Product::launch`].
pub static PRODUCT: Module = Module::new("product", include_str!("product.cu"));

impl Product {
    /// Computes the product by the kernel of [`PRODUCT`], which must be loaded, for a machine without cuBLASLt. The kernel is slow,
    /// because it does not use tensor cores.
    ///
    /// # Panics
    /// If a matrix has 2³¹ elements in a row or a column, or the element types do not fit.
    pub fn launch(&self, gpu: &dyn Gpu) {
        const TILE: usize = 64;
        self.check();
        let [a_row, a_inner] = self.a.strides(self.rows, self.inner);
        let [b_inner, b_col] = self.b.strides(self.inner, self.cols);
        let (a, b) = (self.a.pointer(), self.b.pointer());
        let blocks = self.rows.div_ceil(TILE) * self.cols.div_ceil(TILE);
        gpu.launch(
            &PRODUCT.kernel("product", a.dtype),
            Grid::new(blocks, 256),
            &[
                a.into(),
                a_row,
                a_inner,
                b.into(),
                b_inner,
                b_col,
                self.c.map_or(Arg::Pointer(0), Arg::from),
                self.out.into(),
                usize::from(self.out.dtype == DType::F32).into(),
                self.rows.into(),
                self.cols.into(),
                self.inner.into(),
            ],
        );
    }

    /// # Panics
    /// If the element types do not fit.
    pub(crate) fn check(&self) {
        let (a, b, out) = (self.a.pointer().dtype, self.b.pointer().dtype, self.out.dtype);
        let c = self.c.map_or(out, |c| c.dtype);
        let known = matches!(a, DType::F32 | DType::Bf16) && (out == a || out == DType::F32);
        assert!(known && a == b && c == out, "a product of {a} and {b}, with {c} added, into {out}");
    }
}
