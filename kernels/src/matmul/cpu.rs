use super::gemm::{Accumulate, Mat, MatMut, gemm};
use engine::Want;
use engine::simd::Real;

/// The sizes of a linear map over `rows` rows.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
}

/// y[r, o] = Σ_i x[r, i]·w[o, i]
pub fn forward<T: Real>(s: Sizes, x: &[T], w: &[T], y: &mut [T], accumulate: Accumulate) {
    let (x, w) = (Mat::new(x, s.rows, s.inputs), Mat::new(w, s.outputs, s.inputs));
    gemm(MatMut::new(y, s.rows, s.outputs), x, w.transposed(), accumulate);
}

/// d_x[r, i] = Σ_o d_y[r, o]·w[o, i]
pub fn vjp_x<T: Real>(s: Sizes, d_y: &[T], w: &[T], want: Want, d_x: &mut [T]) {
    let (d_y, w) = (Mat::new(d_y, s.rows, s.outputs), Mat::new(w, s.outputs, s.inputs));
    gemm(MatMut::new(d_x, s.rows, s.inputs), d_y, w, accumulate(want));
}

/// d_w[o, i] = Σ_r d_y[r, o]·x[r, i]
pub fn vjp_w<T: Real>(s: Sizes, d_y: &[T], x: &[T], want: Want, d_w: &mut [T]) {
    let (d_y, x) = (Mat::new(d_y, s.rows, s.outputs), Mat::new(x, s.rows, s.inputs));
    gemm(MatMut::new(d_w, s.outputs, s.inputs), d_y.transposed(), x, accumulate(want));
}

/// How a product goes into the buffer of a wanted gradient.
fn accumulate(want: Want) -> Accumulate {
    if want == Want::Add { Accumulate::Add } else { Accumulate::Write }
}
