use super::cpu::{self, Drawn, State};
use super::{INIT_LOGVAR, Noise, cuda, read_clock};
use engine::rng::Stream;
use engine::{Buffer, Context, Cost, Device, Spec, Update, with_real};

/// The posterior at the start of a batch: μ = 0, λ = `logvar` + `logvar_std`·N(0, 1), moments 0, the first noise and its
/// z, KL 0, and the clock's t = 0.
///
/// - Formula: `μ = 0`, `λ = logvar + logvar_std·N(0, 1)`, `z = μ + σ ⊙ ε`
/// - Source: Kong et al., arXiv 2502.01567, algorithm 1
///
/// Ins: `samples` i32 [B], the identity of each sample, which keys its noise; with [`Source::Table`](super::Source::Table)
/// also `noise` [T', B, S, d]. State: see [`latents`](super).
#[derive(Clone, Copy, Debug)]
pub struct LatentInit {
    /// The noise of the fast steps.
    pub noise: Noise,
    /// Mean of the initial λ.
    pub logvar: f64,
    /// Standard deviation of the initial λ.
    pub logvar_std: f64,
}

impl Update for LatentInit {
    fn name(&self) -> &'static str {
        "latent_init"
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        let (samples, table) = ins.split_first().expect("samples");
        if let Device::Cuda(gpu) = cx.device {
            return cuda::init(&**gpu, self, samples, table, state);
        }
        let (_, round) = read_clock(&state[9]);
        state[9].as_mut_slice::<i32>()[0] = 0;
        state[8].clear();
        let z = &state[7];
        with_real!(z.dtype(), T => {
            let supply = self.noise.supply::<T>(0, round, samples, table, z);
            let stream = Stream::new(self.noise.seed, INIT_LOGVAR).step(round as u32);
            let spread = Drawn::new(stream, samples, z.shape());
            cpu::init(self.logvar, self.logvar_std, spread, supply, State::of(state));
        });
    }

    fn cost(&self, _ins: &[Spec], state: &[Spec]) -> Cost {
        let (n, bytes) = (state[0].shape.numel() as u64, state[0].bytes() as u64);
        Cost { flops: n * (2 * cpu::NORMAL_FLOPS + 2 + cpu::DRAW_FLOPS), bytes: 8 * bytes }
    }
}
