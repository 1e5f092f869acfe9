use crate::DType;
use std::fmt;

/// Sizes of a contiguous row-major tensor of at most four dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    rank: u8,
    dims: [usize; Self::MOST],
}

impl Shape {
    /// The largest number of dimensions.
    pub const MOST: usize = 4;

    /// A shape of up to four dimensions; `[]` is a scalar.
    ///
    /// # Panics
    /// If more than four dimensions are given.
    pub const fn new(dims: &[usize]) -> Self {
        assert!(dims.len() <= Self::MOST, "a shape has at most four dimensions");
        let mut all = [1; Self::MOST];
        let mut i = 0;
        while i < dims.len() {
            all[i] = dims[i];
            i += 1;
        }
        Self { rank: dims.len() as u8, dims: all }
    }

    /// The sizes, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.dims.iter().product()
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// The innermost size; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The product of all sizes but the innermost. As a matrix the tensor is `[rows, last]`.
    pub fn rows(&self) -> usize {
        self.dims().split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// The same shape with another innermost size.
    #[must_use]
    pub fn with_last(mut self, last: usize) -> Self {
        assert!(self.rank > 0, "a scalar has no innermost size");
        self.dims[self.rank as usize - 1] = last;
        self
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

/// Element type and shape of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub shape: Shape,
}

impl Spec {
    /// `Spec::new(DType::F32, &[batch, tokens, dim])`.
    pub const fn new(dtype: DType, dims: &[usize]) -> Self {
        Self { dtype, shape: Shape::new(dims) }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.numel() * self.dtype.size()
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}
