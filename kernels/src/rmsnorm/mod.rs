//! Root mean square norm with a learned gain.

mod cpu;

use crate::case::{Case, Fill, Input, Sizes};
use crate::launch::{THREADS, WARPS, args};
use crate::{check, cost, lanes};
use engine::cuda::{Arg, Grid, Module};
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("rmsnorm", include_str!("kernel.cu"));

/// Rows of a block of the backward pass on a GPU: enough that the gain's partial sums cost little.
const BLOCK_ROWS: usize = 64;

/// Bytes of shared memory that a block has on every GPU.
const SHARED: usize = 48 << 10;

/// `x [.., d], gain [d] → y [.., d], rstd [rows]`.
///
/// - Formula: `y = x · rstd ⊙ gain`, `rstd = 1 / √(mean(x²) + eps)` per row
/// - VJP: with x̂ = x·rstd: `d_x = rstd · (gain ⊙ d_y − x̂ · mean(gain ⊙ d_y ⊙ x̂))`, `d_gain = Σ_rows d_y ⊙ x̂`
/// - Source: Zhang and Sennrich, arXiv 1910.07467
///
/// Memory-bound; one pass over `x` and `d_y` gives both gradients.
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
            let (rows, d, kernel) = (rstd.len(), ins[1].len(), KERNELS.kernel("forward", y.dtype()));
            let args = args![ins[0], ins[1], y, rstd, Arg::F32(self.eps as f32), rows, d];
            return gpu.launch(&kernel, Grid::new(rows.div_ceil(WARPS), THREADS), args);
        }
        with_real!(ins[0].dtype(), T => {
            let (x, gain) = (ins[0].as_slice(), ins[1].as_slice());
            cpu::forward::<T>(self.eps, x, gain, y.as_mut_slice(), rstd.as_mut_slice());
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let [d_x, d_gain] = d else { unreachable!("two inputs") };
        let (rows, dim, dtype) = (d_y.shape().rows(), d_y.shape().last(), d_y.dtype());
        if let Device::Cuda(gpu) = cx.device {
            let (blocks, want_gain) = (rows.div_ceil(BLOCK_ROWS), wants[1].is_wanted());
            // A warp's share of the gain's gradient is a row in shared memory, so wide rows leave space for fewer
            // warps.
            let warps = if want_gain { (SHARED / (4 * dim)).clamp(1, WARPS) } else { WARPS };
            let shared = if want_gain { 4 * dim * warps } else { 0 };
            let sums = if want_gain { cx.scratch_at(DType::F32, blocks * dim).into() } else { Arg::Pointer(0) };
            let grid = Grid::new(blocks, 32 * warps as u32).shared(shared);
            let args = args![ins[0], ins[1], outs[1], d_y, wants[0], d_x, sums, rows, dim, BLOCK_ROWS];
            gpu.launch(&KERNELS.kernel("backward", dtype), grid, args);
            if want_gain {
                let args = args![sums, blocks, wants[1], d_gain, dim];
                gpu.launch(&KERNELS.kernel("sum_partials", dtype), Grid::new(dim.div_ceil(32), 1024), args);
            }
            return;
        }
        with_real!(d_y.dtype(), T => {
            let known = cpu::Known::<T> { x: ins[0].as_slice(), rstd: outs[1].as_slice(), d_y: d_y.as_slice() };
            let partials = cx.scratch::<T>(if wants[1].is_wanted() { rows.div_ceil(cpu::ROWS) * dim } else { 0 });
            let gain = if wants[0].is_wanted() { ins[1].as_slice() } else { &[] };
            cpu::vjp(known, dim, gain, wants[0], lanes::wanted(wants[0], d_x), partials);
            if wants[1].is_wanted() {
                // Chunk by chunk, in their order.
                lanes::sum_rows::<T>(wants[1], partials, d_gain.as_mut_slice());
            }
        });
    }

    /// One gradient of the gain per chunk of rows.
    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        let rows = match device {
            _ if !pass.gives(1) => return 0,
            Device::Cpu(_) => cpu::ROWS,
            Device::Cuda(_) => BLOCK_ROWS,
        };
        ins[0].shape.rows().div_ceil(rows) * ins[0].shape.last() * check::statistic(ins[0].dtype).size()
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
