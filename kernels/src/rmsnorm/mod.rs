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
    fn name(&self) -> &'static str {
        "rmsnorm"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "gain"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        let dtype = check::real("x", ins[0])?;
        check::is("gain", ins[1], dtype, &[ins[0].shape.last()])?;
        let rstd = Spec::new(check::statistic(dtype), &[ins[0].shape.rows()]);
        Ok(vec![Output { name: "y", spec: ins[0] }, Output { name: "rstd", spec: rstd }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        match (wants[0].is_wanted(), wants[1].is_wanted()) {
            (true, _) => Reads::of(&[0, 1], &[1]),
            (false, true) => Reads::of(&[0], &[1]),
            (false, false) => Reads::default(),
        }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let [y, rstd] = outs else { unreachable!("two outputs") };
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, self.eps, ins[0], ins[1], y, rstd);
        }
        with_real!(ins[0].dtype(), T => {
            let (x, gain) = (ins[0].as_slice(), ins[1].as_slice());
            cpu::forward::<T>(self.eps, x, gain, y.as_mut_slice(), rstd.as_mut_slice());
        })
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        outs: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        let [d_x, d_gain] = d_ins else { unreachable!("two inputs") };
        let d = d_out.shape().last();
        if !wants.iter().any(|want| want.is_wanted()) {
            return;
        }
        if let Device::Cuda(gpu) = cx.device {
            let known = cuda::Known { x: ins[0], gain: ins[1], rstd: outs[1], d_y: d_out };
            let numbers = cuda::partials(d_out.shape().rows(), d, wants[1]);
            let partial = wants[1].is_wanted().then(|| cx.scratch_at(DType::F32, numbers));
            return cuda::backward(&**gpu, &known, [wants[0], wants[1]], d_x, d_gain, partial);
        }
        with_real!(d_out.dtype(), T => {
            let known = cpu::Known::<T> { x: ins[0].as_slice(), rstd: outs[1].as_slice(), d_y: d_out.as_slice() };
            let partials = cx.scratch::<T>(cpu::partials(d_out.shape().rows(), d, wants[1]));
            if wants[0].is_wanted() {
                cpu::vjp_x(known, ins[1].as_slice(), wants[0], d_x.as_mut_slice(), partials);
            } else {
                cpu::vjp_gain(known, d, partials);
            }
            if wants[1].is_wanted() {
                // Chunk by chunk, in their order.
                lanes::sum_rows::<T>(wants[1], partials, d_gain.as_mut_slice());
            }
        });
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        match pass {
            Pass::Forward => 0,
            Pass::Vjp(wants) | Pass::Fused(wants) => {
                let (rows, d) = (ins[0].shape.rows(), ins[0].shape.last());
                let partials = match device {
                    Device::Cpu => cpu::partials(rows, d, wants[1]),
                    Device::Cuda(_) => cuda::partials(rows, d, wants[1]),
                };
                partials * check::statistic(ins[0].dtype).size()
            }
        }
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let [x, gain] = ins else { unreachable!("two inputs") };
        let (n, rows) = (x.shape.numel() as u64, x.shape.rows() as u64);
        let (bytes, rstd) = (x.bytes() as u64, rows * check::statistic(x.dtype).size() as u64);
        let forward = Cost { flops: 4 * n + 4 * rows, bytes: 2 * bytes + gain.bytes() as u64 + rstd };
        cost::of_pass(pass, forward, |wants| {
            let (mut flops, mut read) = (0, 0);
            if wants.iter().any(|want| want.is_wanted()) {
                read = 2 * bytes + rstd;
            }
            if wants[0].is_wanted() {
                flops += 7 * n + 3 * rows;
                read += gain.bytes() as u64;
            }
            if wants[1].is_wanted() {
                flops += 3 * n;
            }
            Cost { flops, bytes: read }
                + cost::store(wants[0], x.shape.numel(), x.bytes())
                + cost::store(wants[1], gain.shape.numel(), gain.bytes())
        })
    }
}

/// One case: the residual stream `[B, N, d]`.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let x = Input::new(&[s.batch, s.tokens, s.dim()], Fill::NORMAL);
    let gain = Input::new(&[s.dim()], Fill::Normal { mean: 1.0, std: 0.2 });
    vec![Case::new("residual", RmsNorm { eps: 1e-5 }, vec![x, gain])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn formula(x: &[f64], gain: &[f64]) -> Vec<f64> {
        let d = gain.len();
        let norm = |row: &[f64]| (row.iter().map(|x| x.powi(2)).sum::<f64>() / d as f64 + 1e-5).sqrt();
        x.chunks(d).flat_map(|row| row.iter().zip(gain).map(|(x, g)| x / norm(row) * g).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn matches_the_formula() {
        for case in testing::sizes().iter().flat_map(cases) {
            testing::check(&case, |x| formula(&x[0], &x[1]));
        }
    }

    /// More rows than one chunk: partial sums of the gain's gradient are reduced.
    #[test]
    fn gain_gradient_over_many_chunks() {
        let rows = 2 * cpu::ROWS + 9;
        let s = Sizes { batch: 1, tokens: rows, ..testing::sizes()[0] };
        let op = RmsNorm { eps: 1e-5 };
        let buffers = cases(&s)[0].buffers(DType::F64, 2);
        let ins: Vec<_> = buffers.iter().collect();
        let outs = testing::forward(&op, &ins);
        let ones = Buffer::from_f64(DType::F64, outs[0].shape().dims(), &vec![1.0; rows * s.dim()]);
        let expected: Vec<f64> = (0..s.dim())
            .map(|j| {
                let hat = formula(&ins[0].to_f64(), &vec![1.0; s.dim()]);
                hat.iter().skip(j).step_by(s.dim()).sum::<f64>()
            })
            .collect();
        for wants in [[Want::Skip, Want::Write], [Want::Write, Want::Write]] {
            let d_ins = testing::vjp(&op, &wants, &ins, &outs, &ones);
            assert!(testing::distance(&d_ins[1].to_f64(), &expected) < 1e-13);
        }
    }

    #[test]
    fn gain_has_the_width_of_x() {
        let ins = [Spec::new(DType::F32, &[2, 3, 4]), Spec::new(DType::F32, &[3])];
        let error = RmsNorm { eps: 1e-5 }.infer(&ins).unwrap_err().to_string();
        assert_eq!(error, "gain is f32[3], must be f32[4]");
    }
}
