//! In-place updates: the global norm of a gradient, and AdamW (Loshchilov and Hutter, arXiv 1711.05101) on the clipped
//! gradient, with the arithmetic of PyTorch's `clip_grad_norm_` and `AdamW`.
//!
//! # An optimiser in your own plan
//!
//! [`AdamW`], [`Sgd`](crate::sgd::Sgd) and [`Muon`](crate::muon::Muon) read the same three inputs, so a plan may use a different
//! one for each parameter. It needs a buffer `norms` with a number per parameter, a buffer `schedule` with the learning rate and
//! the step number, which the caller sets before each step, and the state of each parameter. First a [`SquaredNorm`] of every
//! parameter runs, because a gradient is clipped to the norm of all; then the optimiser of every parameter. The documentation of
//! `autograd::Plan::push_update` has a worked example.

pub(crate) mod cpu;

use crate::lanes::CHUNK;
use crate::launch::{PER_BLOCK, THREADS, args, elements};
use engine::cuda::{Arg, Grid, Module};
use engine::simd::Real;
use engine::{Buffer, Context, Cost, DType, Device, Spec, Update, with_real};

pub(crate) static KERNELS: Module = Module::new("adamw", concat!(include_str!("step.cuh"), include_str!("kernel.cu")));

/// The constants of AdamW.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; usually 0 for vectors.
    pub weight_decay: f64,
}

/// One parameter's share of the squared global norm.
///
/// - Formula: `norms[index] = Σ grad²`
/// - Source: elementary
///
/// Ins: `grad [..]`. State: `norms [P]`. Sums each chunk by lanes, and the chunks in order in f64. Memory-bound.
#[derive(Clone, Copy, Debug)]
pub struct SquaredNorm {
    /// Index of this parameter among the P.
    pub index: usize,
}

impl Update for SquaredNorm {
    fn name(&self) -> &'static str {
        "squared_norm"
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let (grad, n, norm) = (ins[0], ins[0].len(), state[0].pointer().offset(self.index));
            let blocks = n.div_ceil(PER_BLOCK);
            let partial = cx.scratch_at(DType::F32, blocks);
            let kernel = |entry| KERNELS.kernel(entry, learned(grad));
            gpu.launch(&kernel("sum_squares"), Grid::new(blocks, THREADS), args![grad, partial, n, PER_BLOCK]);
            return gpu.launch(&kernel("sum_partials"), Grid::new(1, 1024), args![partial, blocks, norm]);
        }
        with_real!(ins[0].dtype(), T => {
            let grad = ins[0].as_slice::<T>();
            let partials = cx.scratch::<T>(grad.len().div_ceil(CHUNK));
            state[0].as_mut_slice::<T>()[self.index] = cpu::squared_norm(grad, partials);
        });
    }

    fn scratch(&self, device: &Device, ins: &[Spec], _state: &[Spec]) -> usize {
        let n = ins[0].shape.numel();
        match device {
            Device::Cpu(_) => n.div_ceil(CHUNK) * ins[0].dtype.size(),
            Device::Cuda(_) => n.div_ceil(PER_BLOCK) * size_of::<f32>(),
        }
    }

    fn cost(&self, ins: &[Spec], _state: &[Spec]) -> Cost {
        Cost { flops: 2 * ins[0].shape.numel() as u64, bytes: ins[0].bytes() as u64 }
    }
}

/// One step of AdamW on one parameter, its gradient clipped to a global norm:
/// ```text
/// g = grad · min(1, clip / (√Σ norms + 1e-6))
/// w ← w (1 − rate·weight_decay)
/// m ← beta1 m + (1 − beta1) g            v ← beta2 v + (1 − beta2) g²
/// w ← w − rate · m/(1 − beta1ᵗ) / (√(v/(1 − beta2ᵗ)) + eps)
/// ```
/// - Formula: above
/// - Source: Loshchilov and Hutter, arXiv 1711.05101, as PyTorch's `clip_grad_norm_` and `AdamW` compute it
///
/// Ins: `grad [..]`, `norms [P]` (every parameter's [`SquaredNorm`]), `schedule [2]` = rate and step number t, counted from
/// 1. State: `w`, `m`, `v`, all of the gradient's spec; the moments start as zeros.
///
/// If the global norm is not finite, nothing changes; the caller can see it in `norms`. Memory-bound: one pass.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Its constants: `beta1`, `beta2`, `eps` and `weight_decay`.
    pub rule: Rule,
    /// Largest global norm of the gradient; infinity for no clipping.
    pub clip: f64,
}

impl Update for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        let &[grad, norms, schedule] = ins else { unreachable!("three inputs") };
        let [w, m, v] = state else { unreachable!("three buffers of state") };
        if let Device::Cuda(gpu) = cx.device {
            let (n, Rule { beta1, beta2, eps, weight_decay }) = (grad.len(), self.rule);
            let constants = [beta1, beta2, eps, weight_decay, self.clip].map(Arg::F64);
            let args = [args![grad, norms, norms.len(), schedule], &constants[..], args![w, m, v, n]].concat();
            return gpu.launch(&KERNELS.kernel("update", learned(grad)), elements(n, DType::F32), &args);
        }
        with_real!(grad.dtype(), T => {
            let Some(clip) = clip_factor::<T>(norms, self.clip) else { return };
            let &[rate, t] = schedule.as_slice::<T>() else { unreachable!("rate and step number") };
            let step = self.rule.step::<T>(rate.to_f64(), t as u32);
            cpu::adamw(&step, clip, grad.as_slice(), w.as_mut_slice(), m.as_mut_slice(), v.as_mut_slice());
        });
    }

    fn cost(&self, ins: &[Spec], _state: &[Spec]) -> Cost {
        let n = ins[0].shape.numel() as u64;
        Cost { flops: (1 + cpu::FLOPS) * n, bytes: 7 * ins[0].bytes() as u64 }
    }
}

/// The factor by which a gradient with these squares of norms is clipped to the norm `clip`; `None` if its norm is not
/// finite.
pub(crate) fn clip_factor<T: Real>(norms: &Buffer, clip: f64) -> Option<f64> {
    let norm = norms.as_slice::<T>().iter().map(|square| square.to_f64()).sum::<f64>().sqrt();
    norm.is_finite().then(|| (clip / (norm + 1e-6)).min(1.0))
}

/// Weights, gradients and moments are f32 on a device.
pub(crate) fn learned(buffer: &Buffer) -> DType {
    assert_eq!(buffer.dtype(), DType::F32, "training on a device is in f32");
    DType::F32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, distance, normal, same_bits};

    const ADAMW: AdamW = AdamW { rule: Rule { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 }, clip: 1.0 };

    /// The textbook formula, one number at a time, in another order: m̂ and v̂ first.
    fn textbook([w, m, v]: &mut [f64; 3], g: f64, rate: f64, t: i32) {
        *m = 0.9 * *m + 0.1 * g;
        *v = 0.95 * *v + 0.05 * g.powi(2);
        let (m_hat, v_hat) = (*m / (1.0 - 0.9f64.powi(t)), *v / (1.0 - 0.95f64.powi(t)));
        *w -= rate * (m_hat / (v_hat.sqrt() + 1e-8) + 0.1 * *w);
    }

    const SIZES: [usize; 2] = [CHUNK + 21, 7];

    /// The first weights of two parameters for t = 0, then their gradients.
    fn numbers(dtype: DType, t: u32, std: f64) -> [Buffer; 2] {
        [0, 1].map(|i| {
            let x = normal(dtype, &[SIZES[i]], 10 * t + i as u32).to_f64();
            Buffer::from_f64(dtype, &[SIZES[i]], &x.iter().map(|x| f64::from((std * x) as f32)).collect::<Vec<_>>())
        })
    }

    /// Five steps of two parameters; returns w, m and v of both.
    fn learn(dtype: DType, std: f64) -> Vec<Buffer> {
        let zeros = |n: usize| Buffer::new(Spec::new(dtype, &[n]));
        let mut state = numbers(dtype, 0, 1.0).map(|w| [w.clone(), zeros(w.len()), zeros(w.len())]);
        let mut norms = [zeros(2)];
        for t in 1..=5 {
            let grads = numbers(dtype, t, std);
            for index in 0..2 {
                apply(&SquaredNorm { index }, &[&grads[index]], &mut norms);
            }
            let schedule = Buffer::from_f64(dtype, &[2], &[0.25, f64::from(t)]);
            for (grad, state) in grads.iter().zip(&mut state) {
                apply(&ADAMW, &[grad, &norms[0], &schedule], state);
            }
        }
        state.into_iter().flatten().collect()
    }

    #[test]
    fn matches_the_textbook_with_and_without_clipping() {
        for std in [1.0, 1e-3] {
            let mut books =
                numbers(DType::F64, 0, 1.0).map(|w| w.to_f64().iter().map(|&w| [w, 0.0, 0.0]).collect::<Vec<_>>());
            for t in 1..=5 {
                let grads = numbers(DType::F64, t, std).map(|g| g.to_f64());
                let norm = grads.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
                assert_eq!(norm > 1.0, std == 1.0, "one run clips, the other does not");
                let factor = if norm + 1e-6 > 1.0 { 1.0 / (norm + 1e-6) } else { 1.0 };
                for (book, g) in books.iter_mut().flatten().zip(grads.iter().flatten()) {
                    textbook(book, factor * g, 0.25, t as i32);
                }
            }
            let doubles = learn(DType::F64, std);
            let singles = same_bits("five steps", || learn(DType::F32, std));
            for (i, (double, single)) in doubles.iter().zip(&singles).enumerate() {
                let expected: Vec<_> = books[i / 3].iter().map(|book| book[i % 3]).collect();
                assert!(distance(&double.to_f64(), &expected) < 1e-13);
                assert!(distance(&single.to_f64(), &double.to_f64()) < 1e-5);
            }
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let grad = Buffer::from_slice(&[2], &[1.0f32, f32::INFINITY]);
        let mut norms = [Buffer::new(Spec::new(DType::F32, &[1]))];
        apply(&SquaredNorm { index: 0 }, &[&grad], &mut norms);
        let schedule = Buffer::from_slice(&[2], &[0.1f32, 1.0]);
        let mut state = [1.0f32, 0.0, 0.0].map(|x| Buffer::from_slice(&[2], &[x; 2]));
        apply(&ADAMW, &[&grad, &norms[0], &schedule], &mut state);
        assert_eq!(state.map(|b| b.to_f64()), [1.0, 0.0, 0.0].map(|x| [x; 2]));
    }
}
