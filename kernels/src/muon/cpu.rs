use super::{COEFFICIENTS, MOMENTUM, STEPS};
use crate::adamw::cpu::squared_norm;
use crate::lanes::CHUNK;
use crate::matmul::gemm::gemm;
use crate::matmul::mat::{Mat, MatMut};
use engine::simd::Real;
use engine::{Want, parallel};

/// Updates the momentum `m` for the gradient, scaled by `clip`. Writes Nesterov's momentum to `u`.
pub fn momentum<T: Real>(clip: f64, grad: &[T], m: &mut [T], u: &mut [T]) {
    let (beta, gain) = (T::from_f64(MOMENTUM), T::from_f64((1.0 - MOMENTUM) * clip));
    parallel::chunks2(m, CHUNK, u, CHUNK, |i, m, u| {
        for ((m, u), &g) in m.iter_mut().zip(u).zip(&grad[i * CHUNK..]) {
            *m = beta * *m + gain * g;
            *u = beta * *m + gain * g;
        }
    });
}

/// Elements of scratch memory for a block: x, and what [`orthogonalise`] needs.
pub fn scratch_len(rows: usize, cols: usize) -> usize {
    let [size, n] = [rows * cols, rows.min(cols)];
    2 * size + 2 * n * n + size.div_ceil(CHUNK)
}

/// Brings the singular values of x [rows, cols] near 1; zeros stay zeros. The result is in x or in the scratch memory.
pub fn orthogonalise<'a, T: Real>(x: &'a mut [T], rows: usize, cols: usize, scratch: &'a mut [T]) -> &'a [T] {
    let n = rows.min(cols);
    let [y, a, p, partials] = crate::lanes::split(scratch, [x.len(), n * n, n * n, x.len().div_ceil(CHUNK)]);
    let norm = squared_norm(x, partials).sqrt();
    let scale = if norm > T::ZERO { T::ONE / norm } else { T::ZERO };
    parallel::chunks(x, CHUNK, |_, x| x.iter_mut().for_each(|x| *x *= scale));
    let [c0, c1, c2] = COEFFICIENTS.map(T::from_f64);
    let (mut x, mut y) = (x, y);
    for _ in 0..STEPS {
        let old = Mat::new(x, rows, cols);
        let (left, right) = if rows <= cols { (old, old.transposed()) } else { (old.transposed(), old) };
        gemm(MatMut::new(a, n, n), left, right, Want::Write);
        let square = Mat::new(a, n, n);
        gemm(MatMut::new(p, n, n), square, square, Want::Write);
        parallel::chunks(p, CHUNK, |i, p| p.iter_mut().zip(&a[i * CHUNK..]).for_each(|(p, &a)| *p = c2 * *p + c1 * a));
        p.iter_mut().step_by(n + 1).for_each(|p| *p += c0);
        let p = Mat::new(p, n, n);
        let (left, right) = if rows <= cols { (p, old) } else { (old, p) };
        gemm(MatMut::new(y, rows, cols), left, right, Want::Write);
        (x, y) = (y, x);
    }
    x
}

/// `w ← keep·w − step·o`
pub fn descend<T: Real>(keep: f64, step: f64, o: &[T], w: &mut [T]) {
    let [keep, step] = [keep, step].map(T::from_f64);
    parallel::chunks(w, CHUNK, |i, w| {
        w.iter_mut().zip(&o[i * CHUNK..]).for_each(|(w, &o)| *w = keep * *w - step * o);
    });
}
