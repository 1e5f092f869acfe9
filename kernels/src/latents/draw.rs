use super::cpu::{self, Drawn};
use super::{DRAW, cuda, scratch_bytes};
use engine::rng::Stream;
use engine::{Buffer, Context, Cost, DType, Device, Spec, Update, with_real};

/// A draw from the posterior, for scoring: independent of the noise of the fast steps and of other draws.
///
/// Ins: `mu`, `logvar` [B, S, d], `samples` i32 [B], `draw` i32 [1], the number of the draw. State: `eps`, `z` [B, S, d],
/// and `log_ratio` [B] in nats, what importance weights need (Burda et al., arXiv 1509.00519):
/// ```text
/// log q(z|x) − log p(z) = Σ ½ (z² − ε² − λ)
/// ```
/// - Formula: `z = μ + σ ⊙ ε`, and above
/// - Source: Burda et al., "Importance weighted autoencoders", arXiv 1509.00519
///
/// Its mean over draws is the KL.
#[derive(Clone, Copy, Debug)]
pub struct LatentDraw {
    /// The run's seed.
    pub seed: u64,
}

impl Update for LatentDraw {
    fn name(&self) -> &'static str {
        "latent_draw"
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let partial = cx.scratch_at(DType::F32, cuda::partials(state[2].len(), state[1].len()));
            return cuda::draw(&**gpu, self, ins, state, partial);
        }
        let [mu, logvar, samples, draw] = ins else { unreachable!("four inputs") };
        let [eps, z, log_ratio] = state else { unreachable!("three buffers of state") };
        let stream = Stream::new(self.seed, DRAW).step(draw.as_slice::<i32>()[0] as u32);
        let drawn = Drawn::new(stream, samples, mu.shape());
        with_real!(mu.dtype(), T => {
            let rows = cx.scratch::<T>(mu.shape().rows());
            let d = mu.shape().last();
            cpu::draw(d, mu.as_slice(), logvar.as_slice(), drawn, eps.as_mut_slice(), z.as_mut_slice(), rows);
            cpu::sum_rows(rows, log_ratio.as_mut_slice());
        });
    }

    fn scratch(&self, device: &Device, ins: &[Spec], _state: &[Spec]) -> usize {
        scratch_bytes(device, ins[0])
    }

    fn cost(&self, ins: &[Spec], _state: &[Spec]) -> Cost {
        let (n, bytes) = (ins[0].shape.numel() as u64, ins[0].bytes() as u64);
        Cost { flops: n * (cpu::NORMAL_FLOPS + cpu::DRAW_FLOPS + cpu::RATIO_FLOPS), bytes: 4 * bytes }
    }
}
