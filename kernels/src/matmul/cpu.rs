use super::gemm::{gemm, gemm_maybe_packed};
use super::mat::{Accumulate, Mat, MatMut};
use engine::Want;
use engine::simd::Real;

/// The sizes of a linear map over `rows` rows.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
}

/// A weight [outputs, inputs].
#[derive(Clone, Copy)]
pub struct Weight<'a, T> {
    pub w: &'a [T],
    /// The [form](super::forms) for the pass in question.
    pub packed: Option<&'a [T]>,
}

/// y[r, o] = Σ_i x[r, i]·w[o, i]
pub fn forward<T: Real>(s: Sizes, x: &[T], w: Weight<T>, y: &mut [T], accumulate: Accumulate) {
    let (x, y) = (Mat::new(x, s.rows, s.inputs), MatMut::new(y, s.rows, s.outputs));
    gemm_maybe_packed(y, x, Mat::new(w.w, s.outputs, s.inputs).transposed(), w.packed, accumulate);
}

/// d_x[r, i] = Σ_o d_y[r, o]·w[o, i]
pub fn vjp_x<T: Real>(s: Sizes, d_y: &[T], w: Weight<T>, want: Want, d_x: &mut [T]) {
    let (d_y, d_x) = (Mat::new(d_y, s.rows, s.outputs), MatMut::new(d_x, s.rows, s.inputs));
    gemm_maybe_packed(d_x, d_y, Mat::new(w.w, s.outputs, s.inputs), w.packed, want.into());
}

/// d_w[o, i] = Σ_r d_y[r, o]·x[r, i]
pub fn vjp_w<T: Real>(s: Sizes, d_y: &[T], x: &[T], want: Want, d_w: &mut [T]) {
    let (d_y, x) = (Mat::new(d_y, s.rows, s.outputs), Mat::new(x, s.rows, s.inputs));
    gemm(MatMut::new(d_w, s.outputs, s.inputs), d_y.transposed(), x, want.into());
}
