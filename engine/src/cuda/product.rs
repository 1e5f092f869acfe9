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
    /// The first element of the matrix in memory, and whether the factor is its transpose.
    pub fn parts(&self) -> (Pointer, bool) {
        match *self {
            Self::Plain(p) => (p, false),
            Self::Transposed(p) => (p, true),
        }
    }

    /// The first element, and the strides of rows and columns, if the factor is `[rows, cols]`.
    fn args(&self, rows: usize, cols: usize) -> [Arg; 3] {
        match *self {
            Self::Plain(p) => [p.into(), cols.into(), 1.into()],
            Self::Transposed(p) => [p.into(), 1.into(), rows.into()],
        }
    }
}

/// `out = a·b + c`, sums in f32: `a [rows, inner]`, `b [inner, cols]`, `c` and `out [rows, cols]`, row-major.
///
/// Both factors have the same element type, f32 or bf16. `c` and `out` have the type of the factors or f32. Products of
/// f32 numbers are computed in f32, without rounding to fewer bits.
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
    /// Computes the product by the kernel of [`PRODUCT`], which must be loaded. This is for machines without cuBLASLt;
    /// the kernel is slow, because it does not use tensor cores.
    ///
    /// # Panics
    /// If a matrix has 2³¹ elements in a row or a column, or the element types do not fit.
    pub fn launch(&self, gpu: &dyn Gpu) {
        const TILE: usize = 64;
        self.check();
        let [a, a_row, a_inner] = self.a.args(self.rows, self.inner);
        let [b, b_inner, b_col] = self.b.args(self.inner, self.cols);
        let blocks = self.rows.div_ceil(TILE) * self.cols.div_ceil(TILE);
        gpu.launch(
            &PRODUCT.kernel("product", self.a.parts().0.dtype),
            Grid::new(blocks, 256),
            &[
                a,
                a_row,
                a_inner,
                b,
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
        let (a, b, out) = (self.a.parts().0.dtype, self.b.parts().0.dtype, self.out.dtype);
        let c = self.c.map_or(out, |c| c.dtype);
        let known = matches!(a, DType::F32 | DType::Bf16) && (out == a || out == DType::F32);
        assert!(known && a == b && c == out, "a product of {a} and {b}, with {c} added, into {out}");
    }
}
