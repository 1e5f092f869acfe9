//! Fast learning, in place: the posterior q(z|x) = N(μ, σ²) of every sample, λ = log σ², through its life in a batch.
//! [`LatentInit`] starts it, [`LatentAdamW`] moves it by one step of the fast loop of Kong et al. (arXiv 2502.01567,
//! Algorithm 1), [`LatentNatural`] does so by the natural gradient, [`LatentDraw`] draws from it for scoring.
//!
//! Init and steps work on the same ten buffers, in this order:
//!
//! | number | state | shape | |
//! |---|---|---|---|
//! | 0 | `mu` | [B, S, d] | means μ |
//! | 1 | `logvar` | [B, S, d] | λ |
//! | 2, 3 | `m_mu`, `v_mu` | [B, S, d] | AdamW's moments of μ; the natural gradient's two means |
//! | 4, 5 | `m_logvar`, `v_logvar` | [B, S, d] | AdamW's moments of λ |
//! | 6 | `eps` | [B, S, d] | the noise ε that made `z` |
//! | 7 | `z` | [B, S, d] | μ + σ ⊙ ε |
//! | 8 | `kl` | [B] | KL to N(0, I) in nats, before the latest step |
//! | 9 | `clock` | i32 [2] | fast step t, and the slow step or evaluation round, which the caller sets |
//!
//! S is the number of latent vectors of all layers. All are f32 or f64 except the clock. Every pass runs over the rows of
//! `[B·S, d]` in parallel and touches memory once; a sample's numbers depend on nothing outside the sample.

mod cpu;
pub(crate) mod cuda;
mod draw;
mod init;
mod natural;
mod step;
#[cfg(test)]
mod tests;

pub use draw::LatentDraw;
pub use init::LatentInit;
pub use natural::LatentNatural;
pub use step::LatentAdamW;

use cpu::{Drawn, State, Supply};
use engine::rng::Stream;
use engine::simd::Real;
use engine::{Buffer, Context, DType, Device, Spec, with_real};

/// The noise ε of the fast steps.
///
/// Element j of a sample's noise for fast step t is normal number j of the [`Stream`] with this room's site for t, the
/// sample's identity, and the clock's second number as step: it depends on neither batch nor threads.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// The run's seed.
    pub seed: u64,
    /// Whether every step has noise of its own.
    pub redraw: Redraw,
    /// Where it comes from.
    pub source: Source,
}

/// When noise is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redraw {
    /// Afresh for every fast step (Algorithm 1). After the last step `z` is a draw from the final posterior.
    Fresh,
    /// Once per batch, and kept (the public reference).
    Fixed,
}

/// Where noise comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Random numbers.
    Philox,
    /// One more input, the last: `noise [T', B, S, d]`, read at t, or at T' − 1 when t is beyond. For tests with given ε.
    Table,
}

impl Noise {
    /// Per number of a fast step: the operations that its noise takes, and how often a tensor is read or written for it.
    fn cost(&self) -> (u64, u64) {
        match (self.redraw, self.source) {
            (Redraw::Fixed, _) => (0, 0),
            (Redraw::Fresh, Source::Philox) => (cpu::NORMAL_FLOPS, 1),
            (Redraw::Fresh, Source::Table) => (0, 2),
        }
    }

    /// The noise of fast step `t`. `round` is the clock's second number, `table` the inputs after the samples.
    fn supply<'a, T: Real>(
        &self,
        t: u32,
        round: i32,
        samples: &'a Buffer,
        table: &[&'a Buffer],
        z: &Buffer,
    ) -> Supply<'a, T> {
        if self.redraw == Redraw::Fixed && t > 0 {
            return Supply::Kept;
        }
        match self.source {
            Source::Philox => {
                let stream = Stream::new(self.seed, FAST_STEP + t).step(round as u32);
                Supply::Drawn(Drawn::new(stream, samples, z.shape()))
            }
            Source::Table => {
                let [noise] = table else { unreachable!("a table of noise") };
                let size = z.len();
                let last = noise.len() / size - 1;
                Supply::Given(&noise.as_slice()[last.min(t as usize) * size..][..size])
            }
        }
    }
}

/// This room's sites of [`Stream`]: the noise of fast step t is at `FAST_STEP + t`.
const FAST_STEP: u32 = 0x4C00_0000;
const INIT_LOGVAR: u32 = 0x4D00_0000;
const DRAW: u32 = 0x4D00_0001;

/// A fast step on the CPU, whatever moves the posterior.
trait FastStep {
    /// The noise of the steps.
    fn noise(&self) -> &Noise;

    /// How step `t`, counted from 1, moves the posterior.
    fn rule<T: Real>(&self, rate: T, kl_weight: T, t: u32) -> impl cpu::Rule<T>;

    /// Takes the step that the clock shows.
    fn on_cpu(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        let [d_z, rates, kl_weight, samples, table @ ..] = ins else { unreachable!("four inputs or five") };
        let (t, round) = read_clock(&state[9]);
        state[9].as_mut_slice::<i32>()[0] += 1;
        with_real!(d_z.dtype(), T => {
            let supply = self.noise().supply::<T>(t + 1, round, samples, table, &state[7]);
            let rule = self.rule(rates.as_slice::<T>()[t as usize], kl_weight.as_slice::<T>()[0], t + 1);
            let rows = cx.scratch::<T>(d_z.shape().rows());
            let [state @ .., kl, _] = state else { unreachable!("ten buffers of state") };
            cpu::step(rule, d_z.as_slice(), supply, State::of(state), rows);
            cpu::sum_rows(rows, kl.as_mut_slice());
        });
    }
}

/// The clock's two numbers.
fn read_clock(clock: &Buffer) -> (u32, i32) {
    let &[t, round] = clock.as_slice::<i32>() else { unreachable!("fast step and round") };
    (t as u32, round)
}

/// Scratch memory for the partial sums of a number per sample of `[B, S, d]`.
fn scratch_bytes(device: &Device, latents: Spec) -> usize {
    match device {
        Device::Cpu => latents.shape.rows() * latents.dtype.size(),
        Device::Cuda(_) => cuda::partials(latents.shape.dims()[0], latents.shape.numel()) * DType::F32.size(),
    }
}
