use super::{FastStep, Noise, cpu, cuda, scratch_bytes};
use crate::adamw::cpu as adamw;
use engine::simd::Real;
use engine::{Buffer, Context, Cost, DType, Device, Spec, Update};

/// One fast step: both gradients of the NELBO, AdamW on both, the next noise and the next z, in one pass.
/// ```text
/// kl_b     = ½ Σ (μ² + σ² − λ − 1)          before the step, as `GaussianKl` has it
/// g_μ      = d_z + w μ                      d_z = ∂(−log p)/∂z at z = μ + σ ⊙ ε
/// g_λ      = ½ (d_z ⊙ ε ⊙ σ + w (σ² − 1))
/// μ, λ     : AdamW at rates[t]              see `adamw`; t counts from 0
/// t        ← t + 1
/// ε        : that of step t                 unless fixed
/// z        = μ + σ ⊙ ε
/// ```
/// - Formula: above
/// - Source: Kong et al., arXiv 2502.01567, algorithm 1
///
/// Ins: `d_z` [B, S, d], `rates` [T], `kl_weight` [1], the w above, `samples` i32 [B]; with [`Source::Table`] also `noise` [T', B, S, d]. State: see
/// [`latents`](super).
///
/// Memory bounds it: eight tensors in, seven or eight out. With fresh random numbers their arithmetic is of the same order.
///
/// # Panics
/// If t is not below T; on a GPU the last rate holds on.
#[derive(Clone, Copy, Debug)]
pub struct LatentAdamW {
    /// The noise of the fast steps.
    pub noise: Noise,
    /// Decay of the first moments.
    pub beta1: f64,
    /// Decay of the second moments.
    pub beta2: f64,
    /// Added to the root of the second moments.
    pub eps: f64,
    /// Decoupled weight decay, of λ too.
    pub weight_decay: f64,
}

impl FastStep for LatentAdamW {
    fn noise(&self) -> &Noise {
        &self.noise
    }

    fn rule<T: Real>(&self, rate: T, kl_weight: T, t: u32) -> impl cpu::Rule<T> {
        let Self { beta1, beta2, eps, weight_decay, .. } = *self;
        cpu::AdamW { step: adamw::Rule { beta1, beta2, eps, weight_decay }.step(rate.to_f64(), t), kl_weight }
    }
}

impl Update for LatentAdamW {
    fn name(&self) -> &'static str {
        "latent_adamw"
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let partial = cx.scratch_at(DType::F32, cuda::partials(state[8].len(), ins[0].len()));
            return cuda::step(&**gpu, self, ins, state, partial);
        }
        self.on_cpu(cx, ins, state);
    }

    fn scratch(&self, device: &Device, ins: &[Spec], _state: &[Spec]) -> usize {
        scratch_bytes(device, ins[0])
    }

    fn cost(&self, ins: &[Spec], _state: &[Spec]) -> Cost {
        let (n, bytes) = (ins[0].shape.numel() as u64, ins[0].bytes() as u64);
        let (noise, moved) = self.noise.cost();
        Cost {
            flops: n * (cpu::GRADIENT_FLOPS + 2 * adamw::FLOPS + cpu::DRAW_FLOPS + noise),
            bytes: bytes * (15 + moved),
        }
    }
}
