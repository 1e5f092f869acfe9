//! Placeholder loop nest.
use engine::simd::Real;

/// Whether a product overwrites or adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulate {
    /// Overwrite.
    Write,
    /// Add.
    Add,
}

/// A view of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// Row-major.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::with_stride(data, rows, cols, cols)
    }

    /// Row-major with a distance between rows.
    pub fn with_stride(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// c = a·b or c += a·b.
pub fn gemm<T: Real>(c: &mut [T], a: Mat<T>, b: Mat<T>, accumulate: Accumulate) {
    for i in 0..a.rows {
        for j in 0..b.cols {
            let mut sum = if accumulate == Accumulate::Add { c[i * b.cols + j] } else { T::ZERO };
            for k in 0..a.cols {
                let (x, y) = (a.data[i * a.row_stride + k * a.col_stride], b.data[k * b.row_stride + j * b.col_stride]);
                sum = x.mul_add(y, sum);
            }
            c[i * b.cols + j] = sum;
        }
    }
}
