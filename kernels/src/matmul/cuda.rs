//! Products by the device's library.

use super::cpu::Sizes;
use engine::cuda::{Factor, Gpu, Pointer, Product};
use engine::{Buffer, Want};

/// `y = x·wᵀ`, plus the residual if there is one.
pub fn forward(gpu: &dyn Gpu, s: Sizes, x: &Buffer, w: &Buffer, residual: Option<&Buffer>, y: &mut Buffer) {
    gpu.product(&Product {
        rows: s.rows,
        cols: s.outputs,
        inner: s.inputs,
        a: Factor::Plain(x.into()),
        b: Factor::Transposed(w.into()),
        c: residual.map(Pointer::from),
        out: y.into(),
    });
}

/// `d_x = d_y·w`.
pub fn vjp_x(gpu: &dyn Gpu, s: Sizes, d_y: &Buffer, w: &Buffer, want: Want, d_x: &mut Buffer) {
    gpu.product(&Product {
        rows: s.rows,
        cols: s.inputs,
        inner: s.outputs,
        a: Factor::Plain(d_y.into()),
        b: Factor::Plain(w.into()),
        c: added_to(want, d_x),
        out: d_x.into(),
    });
}

/// `d_w = d_yᵀ·x`.
pub fn vjp_w(gpu: &dyn Gpu, s: Sizes, d_y: &Buffer, x: &Buffer, want: Want, d_w: &mut Buffer) {
    gpu.product(&Product {
        rows: s.outputs,
        cols: s.inputs,
        inner: s.rows,
        a: Factor::Transposed(d_y.into()),
        b: Factor::Plain(x.into()),
        c: added_to(want, d_w),
        out: d_w.into(),
    });
}

fn added_to(want: Want, gradient: &Buffer) -> Option<Pointer> {
    (want == Want::Add).then(|| gradient.into())
}
