use super::{FastStep, Noise, cpu, cuda, scratch_bytes};
use engine::simd::Real;
use engine::{Buffer, Context, Cost, DType, Device, Spec, Update};

/// One fast step by the natural gradient: μ moves in units of the posterior's own variance, and the variance follows the
/// curvature of −log p, measured on the way. Next noise and next z as in [`LatentAdamW`](super::LatentAdamW), in one pass.
/// ```text
/// kl_b  = ½ Σ (μ² + σ² − λ − 1)             before the step, as `GaussianKl` has it
/// ĝ     : mean of d_z over the steps so far, weighted by powers of beta1;   d_z = ∂(−log p)/∂z at z = μ + σ ⊙ ε
/// ĥ     : the same of d_z ⊙ ε / σ, by beta2
/// P     = 1 + damping · max(ĥ, 0)
/// μ     ← μ − rates[t] (ĝ + w μ) / P        t counts from 0
/// λ     ← −ln P
/// t     ← t + 1
/// ε     : that of step t                    unless fixed
/// z     = μ + σ ⊙ ε
/// ```
/// - Formula: above
/// - Source: after the variational online Newton method of Khan et al., arXiv 1806.04854
///
/// The mean of d_z ⊙ ε / σ over ε is that of the curvature ∂²(−log p)/∂z² (Stein's lemma): an estimate without bias, which
/// squares of the gradient are not. The weights of both means add up to one at every t.
///
/// Ins: as for `LatentAdamW`, `d_z` [B, S, d], `rates` [T], `kl_weight` [1], the w above, `samples` i32 [B]; with
/// [`Source::Table`] also `noise` [T', B, S, d]. State: see [`latents`](super); the moments of λ are left alone.
///
/// Memory bounds it: six tensors in, five or six out. With fresh random numbers their arithmetic is of the same order.
///
/// # Panics
/// If t is not below T; on a GPU the last rate holds on.
#[derive(Clone, Copy, Debug)]
pub struct LatentNatural {
    /// The noise of the fast steps.
    pub noise: Noise,
    /// Decay of the mean gradient.
    pub beta1: f64,
    /// Decay of the mean curvature.
    pub beta2: f64,
    /// The part of the curvature that counts; 1 would be all of it. Its estimate is noisy, and a variance that falls for no
    /// reason costs KL.
    pub damping: f64,
}

impl FastStep for LatentNatural {
    fn noise(&self) -> &Noise {
        &self.noise
    }

    fn rule<T: Real>(&self, rate: T, kl_weight: T, t: u32) -> impl cpu::Rule<T> {
        let gain = |beta: f64| 1.0 / (1.0 - beta.powi(t as i32));
        cpu::Natural {
            rate,
            beta1: T::from_f64(self.beta1),
            beta2: T::from_f64(self.beta2),
            rest1: T::from_f64(1.0 - self.beta1),
            rest2: T::from_f64(1.0 - self.beta2),
            gain1: T::from_f64(gain(self.beta1)),
            gain2: T::from_f64(self.damping * gain(self.beta2)),
            kl_weight,
        }
    }
}

impl Update for LatentNatural {
    fn name(&self) -> &'static str {
        "latent_natural"
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let partial = cx.scratch_at(DType::F32, cuda::partials(state[8].len(), ins[0].len()));
            return cuda::natural(&**gpu, self, ins, state, partial);
        }
        self.on_cpu(cx, ins, state);
    }

    fn scratch(&self, device: &Device, ins: &[Spec], _state: &[Spec]) -> usize {
        scratch_bytes(device, ins[0])
    }

    fn cost(&self, ins: &[Spec], _state: &[Spec]) -> Cost {
        let (n, bytes) = (ins[0].shape.numel() as u64, ins[0].bytes() as u64);
        let (noise, moved) = self.noise.cost();
        Cost { flops: n * (cpu::NATURAL_FLOPS + cpu::DRAW_FLOPS + noise), bytes: bytes * (11 + moved) }
    }
}
