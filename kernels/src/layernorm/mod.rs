//! Layer norm. The variance comes from a second pass over the row, around the known mean, so that a large mean loses no
//! digits.

mod cpu;

use crate::case::{Case, Fill, Input, Sizes};
use crate::launch::{THREADS, WARPS, args};
use crate::{check, cost, lanes};
use engine::cuda::{Arg, Grid, Module};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("layernorm", include_str!("kernel.cu"));

/// `x [.., d], gain [d], bias [d] → y [.., d], mean [rows], rstd [rows]`.
///
/// - Formula: `y = x̂ ⊙ gain + bias`, `x̂ = (x − mean) · rstd`, `rstd = 1 / √(mean((x − mean)²) + eps)` per row
/// - VJP: with h = gain ⊙ d_y: `d_x = rstd · (h − mean(h) − x̂ · mean(h ⊙ x̂))`, `d_gain = Σ_rows d_y ⊙ x̂`, `d_bias = Σ_rows d_y`
/// - Source: Ba et al., arXiv 1607.06450
///
/// Memory-bound.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
}

impl Op for LayerNorm {
    check::names!("layernorm": x, gain, bias);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("x", ins[0])?;
        for (name, spec) in [("gain", ins[1]), ("bias", ins[2])] {
            check::is(name, spec, dtype, &[ins[0].shape.last()])?;
        }
        let row = Spec::new(check::statistic(dtype), &[ins[0].shape.rows()]);
        Ok(vec![
            Output { name: "y", spec: ins[0] },
            Output { name: "mean", spec: row },
            Output { name: "rstd", spec: row },
        ])
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        match (wants[0].is_wanted(), wants[1].is_wanted()) {
            (true, _) => Reads::of(&[0, 1], &[1, 2]),
            (false, true) => Reads::of(&[0], &[1, 2]),
            (false, false) => Reads::default(),
        }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let [y, mean, rstd] = outs else { unreachable!("three outputs") };
        if let Device::Cuda(gpu) = cx.device {
            let (rows, d, kernel) = (mean.len(), ins[1].len(), KERNELS.kernel("forward", y.dtype()));
            let args = args![ins[0], ins[1], ins[2], y, mean, rstd, Arg::F32(self.eps as f32), rows, d];
            return gpu.launch(&kernel, Grid::new(rows.div_ceil(WARPS), THREADS), args);
        }
        with_real!(ins[0].dtype(), T => {
            let learned = [ins[1].as_slice(), ins[2].as_slice()];
            let (y, mean, rstd) = (y.as_mut_slice(), mean.as_mut_slice(), rstd.as_mut_slice());
            cpu::forward::<T>(self.eps, ins[0].as_slice(), learned, y, mean, rstd);
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let [d_x, d_gain, d_bias] = d else { unreachable!("three inputs") };
        if let Device::Cuda(gpu) = cx.device {
            let (rows, d, dtype) = (d_y.shape().rows(), d_y.shape().last(), d_y.dtype());
            let known = args![ins[0], outs[1], outs[2], d_y];
            if wants[0].is_wanted() {
                let args = [known, args![ins[1], wants[0], d_x, rows, d]].concat();
                gpu.launch(&KERNELS.kernel("backward", dtype), Grid::new(rows.div_ceil(WARPS), THREADS), &args);
            }
            // For the bias alone, x, mean and rstd are empty.
            if cost::any_wanted(&wants[1..]) {
                let args = [known, args![wants[1], d_gain, wants[2], d_bias, rows, d]].concat();
                gpu.launch(&KERNELS.kernel("backward_learned", dtype), Grid::new(d.div_ceil(32), 1024), &args);
            }
            return;
        }
        with_real!(d_y.dtype(), T => {
            let (dim, size) = (d_y.shape().last(), d_y.shape().rows().div_ceil(cpu::ROWS) * d_y.shape().last());
            let sizes = [1, 2].map(|i| if wants[i].is_wanted() { size } else { 0 });
            let [of_gain, of_bias] = lanes::split(cx.scratch::<T>(sizes[0] + sizes[1]), sizes);
            let [x, mean, rstd] = match self.reads(wants).outs {
                0 => [&[][..]; 3],
                _ => [ins[0], outs[1], outs[2]].map(|buffer| buffer.as_slice::<T>()),
            };
            let known = cpu::Known { x, mean, rstd, d_y: d_y.as_slice() };
            let gain = if wants[0].is_wanted() { ins[1].as_slice() } else { &[] };
            cpu::vjp(known, dim, gain, wants[0], lanes::wanted(wants[0], d_x), [&mut *of_gain, &mut *of_bias]);
            for (want, partials, sums) in [(wants[1], of_gain, d_gain), (wants[2], of_bias, d_bias)] {
                if want.is_wanted() {
                    lanes::sum_rows::<T>(want, partials, sums.as_mut_slice());
                }
            }
        });
    }

    /// Gradients of gain and bias per chunk of rows.
    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        let sums = [1, 2].into_iter().filter(|&i| pass.gives(i)).count();
        match device {
            Device::Cpu(_) => {
                sums * ins[0].shape.rows().div_ceil(cpu::ROWS) * ins[0].shape.last() * ins[0].dtype.size()
            }
            Device::Cuda(_) => 0,
        }
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (n, rows) = (ins[0].shape.numel(), ins[0].shape.rows());
        cost::of(self, ins, pass, 8 * n + 5 * rows, &[13 * n, 4 * n, n])
    }
}

const CASE_EPS: f64 = 0.1;

/// One case: the residual stream `[B, N, d]`. Its eps is large: at a width of 2, any two numbers become 1 and −1, so
/// only eps makes the gradient differ from zero.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let x = Input::new(&[s.batch, s.tokens, s.dim()], Fill::Normal { mean: 0.5, std: 1.0 });
    let gain = Input::new(&[s.dim()], Fill::Normal { mean: 1.0, std: 0.2 });
    let bias = Input::normal(&[s.dim()]);
    vec![Case::new("residual", LayerNorm { eps: CASE_EPS }, vec![x, gain, bias])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, distance, forward, sizes};

    fn formula(x: &[f64], gain: &[f64], bias: &[f64]) -> Vec<f64> {
        let d = gain.len();
        let row = |x: &[f64]| -> Vec<f64> {
            let mean = x.iter().sum::<f64>() / d as f64;
            let norm = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64 + CASE_EPS).sqrt();
            (0..d).map(|i| (x[i] - mean) / norm * gain[i] + bias[i]).collect()
        };
        x.chunks(d).flat_map(row).collect()
    }

    #[test]
    fn matches_the_formula() {
        // More columns than one task sums, and more rows than one chunk.
        let large = Sizes { batch: 1, tokens: 41, heads: 3, head_dim: 98, ..sizes()[0] };
        check_all(cases, &[large], |_, _, x| formula(&x[0], &x[1], &x[2]));
    }

    /// A mean of a thousand times the standard deviation loses no more digits than f32 must.
    #[test]
    fn a_large_mean_costs_no_digits() {
        let x: Vec<f32> = (0..64).map(|i| 1000.0 + (i % 7) as f32 * 0.5).collect();
        let learned = [1f32, 0.0].map(|x| Buffer::from_slice(&[64], &[x; 64]));
        let y = forward(&LayerNorm { eps: CASE_EPS }, &[&Buffer::from_slice(&[1, 64], &x), &learned[0], &learned[1]]);
        let exact = formula(&x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), &[1.0; 64], &[0.0; 64]);
        assert!(distance(&y[0].to_f64(), &exact) < 1e-4);
    }
}
