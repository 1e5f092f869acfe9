//! Matrix operands: views of slices with row and column strides.

use engine::{DType, Element, Want, simd};
use std::ops::Range;

/// A matrix to read: element (i, j) is `data[i·row_stride + j·col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a, T: Copy> Mat<'a, T> {
    /// Contiguous rows, [rows, cols]. As in all constructors here, the last element must be within `data`.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::with_strides(data, rows, cols, cols, 1)
    }

    /// Any strides.
    pub fn with_strides(data: &'a [T], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        let end = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + (cols - 1) * col_stride + 1 };
        assert!(end <= data.len(), "a [{rows}, {cols}] matrix ends at {end}, its data at {}", data.len());
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// The transpose, in place.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }

    #[inline(always)]
    pub(super) fn at(&self, i: usize, j: usize) -> T {
        self.data[i * self.row_stride + j * self.col_stride]
    }

    /// Some columns of a contiguous row.
    #[inline(always)]
    pub(super) fn row(&self, i: usize, cols: Range<usize>) -> &'a [T] {
        &self.data[i * self.row_stride..][cols]
    }

    /// Prefetches the share of the matrix that belongs to steps `done` to `done + step` of `all`.
    #[inline(always)]
    pub(super) fn prefetch_part(&self, done: usize, step: usize, all: usize) {
        let lines = if self.col_stride == 1 { *self } else { self.transposed() };
        if lines.col_stride == 1 && lines.cols > 0 {
            for i in done * lines.rows / all..lines.rows.min((done + step) * lines.rows / all) {
                simd::prefetch(&lines.data[i * lines.row_stride..][..lines.cols]);
            }
        }
    }

    /// Strips of `height` rows; the last may be lower.
    pub(crate) fn strips(self, height: usize) -> impl Iterator<Item = Self> {
        (0..self.rows).step_by(height).map(move |i| self.part(i, 0, height.min(self.rows - i), self.cols))
    }

    /// `rows` × `cols` from (i, j).
    #[inline(always)]
    pub(super) fn part(self, i: usize, j: usize, rows: usize, cols: usize) -> Self {
        let start = i * self.row_stride + j * self.col_stride;
        Self::with_strides(self.data.get(start..).unwrap_or_default(), rows, cols, self.row_stride, self.col_stride)
    }
}

impl<'a, T: Element> Mat<'a, T> {
    /// The same matrix, whose numbers are f32.
    pub(super) fn singles(self) -> Mat<'a, f32> {
        assert_eq!(T::DTYPE, DType::F32, "type of a matrix");
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Mat { data: bytemuck::cast_slice(data), rows, cols, row_stride, col_stride }
    }
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub(super) struct Start<'a, T> {
    pub(super) want: Want,
    /// The matrix that `want` adds to, if not C. Its rows are contiguous.
    pub(super) onto: Option<Mat<'a, T>>,
}

impl<T> Start<'_, T> {
    /// Added to C.
    pub(super) const C: Self = Self { want: Want::Add, onto: None };
}

/// A matrix to write: contiguous rows, `row_stride` apart.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    pub(super) data: &'a mut [T],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
}

impl<'a, T> MatMut<'a, T> {
    /// Contiguous rows without gaps, [rows, cols].
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        Self::with_stride(data, rows, cols, cols)
    }

    /// Rows `row_stride` ≥ `cols` apart; the elements between rows do not change.
    pub fn with_stride(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(cols <= row_stride, "rows of {cols} columns overlap when {row_stride} apart");
        let end = if rows == 0 { 0 } else { (rows - 1) * row_stride + cols };
        assert!(end <= data.len(), "a [{rows}, {cols}] matrix ends at {end}, its data at {}", data.len());
        Self { data, rows, cols, row_stride }
    }
}

impl<'a, T: Element> MatMut<'a, T> {
    /// As [`Mat::singles`].
    pub(super) fn singles(self) -> MatMut<'a, f32> {
        assert_eq!(T::DTYPE, DType::F32, "type of a matrix");
        let Self { data, rows, cols, row_stride } = self;
        MatMut { data: bytemuck::cast_slice_mut(data), rows, cols, row_stride }
    }
}
