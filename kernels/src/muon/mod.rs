//! In-place update: Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) on the clipped
//! gradient of a matrix, with the scale of Liu et al., arXiv 2502.16982.

mod cpu;
pub(crate) mod cuda;

use crate::adamw::clip_factor;
use engine::simd::Real;
use engine::{Buffer, Context, Cost, DType, Device, Spec, Update, parallel, with_real};

/// Decay of the momentum.
pub const MOMENTUM: f64 = 0.95;

/// Steps of the Newton–Schulz iteration.
const STEPS: usize = 5;

/// Its polynomial's coefficients of x, x³ and x⁵, which lift a small singular value fast and leave it near 1.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// One step of Muon on one parameter, its gradient clipped to a global norm:
/// ```text
/// g = grad · min(1, clip / (√Σ norms + 1e-6))
/// m ← 0.95 m + 0.05 g
/// u = 0.95 m + 0.05 g
/// for each block of rows of u, a matrix [r, c]:
/// X = u / ‖u‖
/// 5 times: A = X·Xᵀ,  X ← 3.4445 X + (−4.7750 A + 2.0315 A²)·X
/// w ← w (1 − rate·weight_decay) − rate · 0.2 √max(r, c) · X
/// ```
/// - Formula: above
/// - Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; 0.2 √max(r, c), by which an update
///   is about as large as AdamW's, from Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982
///
/// Ins: `grad [rows, c]`, `norms [P]` (every parameter's [`SquaredNorm`](crate::adamw::SquaredNorm)), `schedule [2]` = rate
/// and step number, which is not used. State: `w`, `m`, both of the gradient's spec; the momentum starts as zeros.
///
/// The singular values of X come near 1, within about 0.7 and 1.2. If r > c, A = Xᵀ·X, on the right of X, gives the same
/// X for less work. Where u is zero, X is zero. If the global norm is not finite, nothing changes; the caller can see it in
/// `norms`. Compute-bound: fifteen products per block.
#[derive(Clone, Copy, Debug)]
pub struct Muon {
    /// Number of matrices that the parameter consists of: blocks of equally many rows, one above the other.
    pub blocks: usize,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; infinity for no clipping.
    pub clip: f64,
}

/// The blocks of a parameter, and their sizes.
#[derive(Clone, Copy)]
struct Blocks {
    count: usize,
    rows: usize,
    cols: usize,
}

impl Blocks {
    /// The root mean square of AdamW's updates is about 0.2, that of an orthogonal matrix 1/√max(rows, cols).
    fn scale(self) -> f64 {
        0.2 * (self.rows.max(self.cols) as f64).sqrt()
    }
}

impl Muon {
    fn blocks(&self, w: Spec) -> Blocks {
        let (rows, count) = (w.shape.rows(), self.blocks);
        assert!(rows.is_multiple_of(count), "{rows} rows in {count} equal blocks");
        Blocks { count, rows: rows / count, cols: w.shape.last() }
    }
}

impl Update for Muon {
    fn name(&self) -> &'static str {
        "muon"
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        let &[grad, norms, schedule] = ins else { unreachable!("three inputs") };
        let [w, m] = state else { unreachable!("two buffers of state") };
        let blocks = self.blocks(w.spec());
        if let Device::Cuda(gpu) = cx.device {
            let scratch = cx.scratch_at(DType::F32, cuda::scratch_len(blocks));
            return cuda::step(&**gpu, self, ins, [w, m], scratch);
        }
        let Blocks { count, rows, cols } = blocks;
        let (size, block_len) = (rows * cols, cpu::scratch_len(rows, cols));
        with_real!(grad.dtype(), T => {
            let Some(clip) = clip_factor::<T>(norms, self.clip) else { return };
            let rate = schedule.as_slice::<T>()[0].to_f64();
            let (keep, step) = (1.0 - rate * self.weight_decay, rate * blocks.scale());
            let block = |i: usize, w: &mut [T], m: &mut [T], memory: &mut [T]| {
                let (x, scratch) = memory.split_at_mut(size);
                cpu::momentum(clip, &grad.as_slice::<T>()[i * size..], m, x);
                cpu::descend(keep, step, cpu::orthogonalise(x, rows, cols, scratch), w);
            };
            let memory = cx.scratch::<T>(count * block_len);
            let (w, m) = (w.as_mut_slice::<T>(), m.as_mut_slice::<T>());
            parallel::chunks3((w, size), (m, size), (memory, block_len), block);
        });
    }

    fn scratch(&self, device: &Device, _ins: &[Spec], state: &[Spec]) -> usize {
        let (blocks, w) = (self.blocks(state[0]), state[0]);
        let len = match device {
            Device::Cpu(_) => blocks.count * cpu::scratch_len(blocks.rows, blocks.cols),
            Device::Cuda(_) => cuda::scratch_len(blocks),
        };
        len * w.dtype.size()
    }

    /// Per number: 7 for the momentum, 3 for the norm, 3 for the weight.
    fn cost(&self, ins: &[Spec], state: &[Spec]) -> Cost {
        let Blocks { count, rows, cols } = self.blocks(state[0]);
        let (size, n) = (rows * cols, rows.min(cols));
        let step = 4 * n * size + 2 * n * n * n + 3 * n * n + n;
        Cost { flops: (count * (13 * size + STEPS * step)) as u64, bytes: 5 * ins[0].bytes() as u64 }
    }
}

#[cfg(test)]
mod tests;
