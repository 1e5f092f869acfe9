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

/// `out = a·b + c`, sums in f32: `a [rows, inner]`, `b [inner, cols]`, `c` and `out [rows, cols]`, row-major. Or `count` such
/// products, whose matrices follow each other in memory.
///
/// Both factors have the same element type, f32 or bf16. `c` and `out` have the type of the factors or f32. Products of
/// f32 numbers are computed in f32, without rounding to fewer bits.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Number of products.
    pub count: usize,
    /// Whether all products have the same `a`, and the same `b`.
    pub shared: [bool; 2],
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
    /// If a matrix has 2³¹ elements in a row or a column, there are 2³¹ tiles of results, or the element types do not fit.
    pub fn launch(&self, gpu: &dyn Gpu) {
        const TILE: usize = 64;
        self.check();
        let [a, a_row, a_inner] = self.a.args(self.rows, self.inner);
        let [b, b_inner, b_col] = self.b.args(self.inner, self.cols);
        let [a_step, b_step, _] = self.steps();
        let blocks = self.rows.div_ceil(TILE) * self.cols.div_ceil(TILE) * self.count;
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
                Arg::U64(a_step as u64),
                Arg::U64(b_step as u64),
            ],
        );
    }

    /// Elements from the `a`, `b` and `out` of a product to those of the next.
    pub fn steps(&self) -> [usize; 3] {
        let factor = |is_shared, len| if is_shared { 0 } else { len };
        let [a, b] = self.shared;
        [factor(a, self.rows * self.inner), factor(b, self.inner * self.cols), self.rows * self.cols]
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
