//! Root mean square norm with a learned gain.

mod cpu;
pub(crate) mod cuda;

use crate::case::{Case, Fill, Input, Sizes};
use crate::{check, cost, lanes};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `x [.., d], gain [d] → y [.., d], rstd [rows]`.
///
/// - Formula: `y = x · rstd ⊙ gain`, `rstd = 1 / √(mean(x²) + eps)` per row
/// - VJP: with x̂ = x·rstd: `d_x = rstd · (gain ⊙ d_y − x̂ · mean(gain ⊙ d_y ⊙ x̂))`, `d_gain = Σ_rows d_y ⊙ x̂`
/// - Source: Zhang and Sennrich, arXiv 1910.07467
///
/// Bound by memory; one pass over `x` and `d_y` gives both gradients.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f64,
}

impl Op for RmsNorm {
    check::names!("rmsnorm": x, gain);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("x", ins[0])?;
        check::is("gain", ins[1], dtype, &[ins[0].shape.last()])?;
        let rstd = Spec::new(check::statistic(dtype), &[ins[0].shape.rows()]);
        Ok(vec![Output { name: "y", spec: ins[0] }, Output { name: "rstd", spec: rstd }])
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        if wants[0].is_wanted() { Reads::of(&[0, 1], &[1]) } else { Reads::of(&[0], &[1]) }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let [y, rstd] = outs else { unreachable!("two outputs") };
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, self.eps, [ins[0], ins[1]], [y, rstd]);
        }
        with_real!(ins[0].dtype(), T => {
            let (x, gain) = (ins[0].as_slice(), ins[1].as_slice());
            cpu::forward::<T>(self.eps, x, gain, y.as_mut_slice(), rstd.as_mut_slice());
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let [d_x, d_gain] = d else { unreachable!("two inputs") };
        let (rows, dim) = (d_y.shape().rows(), d_y.shape().last());
        if let Device::Cuda(gpu) = cx.device {
            let partials = wants[1].is_wanted().then(|| cx.scratch_at(DType::F32));
            let known = [ins[0], ins[1], outs[1], d_y];
            return cuda::backward(&**gpu, known, [wants[0], wants[1]], [d_x, d_gain], partials);
        }
        with_real!(d_y.dtype(), T => {
            let known = cpu::Known::<T> { x: ins[0].as_slice(), rstd: outs[1].as_slice(), d_y: d_y.as_slice() };
            let partials = cx.scratch::<T>(cpu::partials(rows, dim, wants[1]));
            let gain = if wants[0].is_wanted() { ins[1].as_slice() } else { &[] };
            cpu::vjp(known, dim, gain, wants[0], lanes::wanted(wants[0], d_x), partials);
            if wants[1].is_wanted() {
                // Chunk by chunk, in their order.
                lanes::sum_rows::<T>(wants[1], partials, d_gain.as_mut_slice());
            }
        });
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        let (Pass::Vjp(wants) | Pass::Fused(wants)) = pass else { return 0 };
        let (rows, d) = (ins[0].shape.rows(), ins[0].shape.last());
        let partials = match device {
            Device::Cpu => cpu::partials(rows, d, wants[1]),
            Device::Cuda(_) => cuda::partials(rows, d, wants[1]),
        };
        partials * check::statistic(ins[0].dtype).size()
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (n, rows) = (ins[0].shape.numel(), ins[0].shape.rows());
        cost::of(self, ins, pass, 4 * n + 4 * rows, &[7 * n + 3 * rows, 3 * n])
    }
}

/// One case: the residual stream `[B, N, d]`.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let x = Input::normal(&[s.batch, s.tokens, s.dim()]);
    let gain = Input::new(&[s.dim()], Fill::Normal { mean: 1.0, std: 0.2 });
    vec![Case::new("residual", RmsNorm { eps: 1e-5 }, vec![x, gain])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, sizes};

    #[test]
    fn matches_the_formula() {
        // More rows than one chunk: partial sums of the gain's gradient are reduced.
        let large = Sizes { batch: 1, tokens: 2 * cpu::ROWS + 9, ..sizes()[0] };
        check_all(cases, &[large], |s, _, x| {
            let norm = |row: &[f64]| (row.iter().map(|x| x.powi(2)).sum::<f64>() / s.dim() as f64 + 1e-5).sqrt();
            let scaled = |row: &[f64]| row.iter().zip(&x[1]).map(|(x, g)| x / norm(row) * g).collect::<Vec<_>>();
            x[0].chunks(s.dim()).flat_map(scaled).collect()
        });
    }
}
