//! In-place updates of the posterior q(z|x) = N(μ, σ²) of every sample, λ = log σ². [`LatentInit`] initialises it.
//! [`LatentStep`] moves it by one step of the fast loop of Kong et al. (arXiv 2502.01567, Algorithm 1) or by the
//! natural gradient. [`LatentDraw`] draws from it for scoring.
//!
//! Init and steps work on the same ten buffers, in this order:
//!
//! | number | state | shape | |
//! |---|---|---|---|
//! | 0 | `mu` | `[B, S, d]` | means μ |
//! | 1 | `logvar` | `[B, S, d]` | λ |
//! | 2, 3 | `m_mu`, `v_mu` | `[B, S, d]` | AdamW's moments of μ; the natural gradient's two means |
//! | 4, 5 | `m_logvar`, `v_logvar` | `[B, S, d]` | AdamW's moments of λ |
//! | 6 | `eps` | `[B, S, d]` | the noise ε that made `z` |
//! | 7 | `z` | `[B, S, d]` | μ + σ ⊙ ε |
//! | 8 | `kl` | `[B]` | KL to N(0, I) in nats, before the latest step |
//! | 9 | `clock` | `i32[2]` | fast step t, and the slow step or evaluation round, which the caller sets |
//!
//! S is the number of latent vectors of all layers. All are f32 or f64 except the clock. Every pass runs over the rows
//! of `[B·S, d]` in parallel and touches memory once; a sample's numbers do not depend on other samples.
//!
//! A step reads `d_z` `[B, S, d]`, which is ∂(−log p)/∂z at z = μ + σ ⊙ ε, `rates` `[T]` and `samples` `i32[B]`, the key of
//! each sample's noise. Tests may add `noise` `[T', B, S, d]`, read at the [number](Noise) of a step's noise, or at T' − 1
//! if that is larger. The CPU panics if t is not below T; a GPU uses the last rate.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::adamw;
use cpu::{Drawn, State, Supply};
use engine::rng::Stream;
use engine::simd::Real;
use engine::{Buffer, Context, Cost, DType, Device, Spec, Update, with_real};

/// The noise ε of the fast steps.
///
/// Element j of a sample's noise number n is normal number j of the [`Stream`] with this module's site for n, the
/// sample's identity, and the clock's second number as step. So it does not depend on the batch or the threads.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// The run's seed.
    pub seed: u64,
    /// Which noise every fast step uses.
    pub renewal: Renewal,
}

/// Which noise fast step t uses, counted from 0. A step ends with the noise and the z of the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Number t (Algorithm 1), so that after the last step `z` is a draw from the final posterior.
    Fresh,
    /// Number ⌊t/2⌋, with its sign changed at odd t. In the estimate of the curvature d_z ⊙ ε / σ most of the mean
    /// gradient cancels within such a pair of steps. After an even number of steps `z` is a draw from the final posterior.
    Antithetic,
    /// Number 0 at all steps (the public reference code).
    Fixed,
}

impl Renewal {
    /// As kernels take it.
    fn code(self) -> usize {
        match self {
            Self::Fixed => 0,
            Self::Fresh => 1,
            Self::Antithetic => 2,
        }
    }
}

impl Noise {
    /// The noise of fast step `t`. `round` is the clock's second number, `table` the inputs after the samples.
    fn supply<'a, T: Real>(
        &self,
        t: u32,
        round: i32,
        samples: &'a Buffer,
        table: &[&'a Buffer],
        z: &Buffer,
    ) -> Supply<'a, T> {
        let number = match self.renewal {
            Renewal::Fixed if t > 0 => return Supply::Kept,
            Renewal::Antithetic if t % 2 == 1 => return Supply::Negated,
            Renewal::Antithetic => t / 2,
            Renewal::Fresh | Renewal::Fixed => t,
        };
        if let [noise] = table {
            let last = noise.len() / z.len() - 1;
            return Supply::Given(&noise.as_slice()[last.min(number as usize) * z.len()..][..z.len()]);
        }
        let stream = Stream::new(self.seed, FAST_STEP + number).step(round as u32);
        Supply::Drawn(Drawn::new(stream, samples, z.shape()))
    }
}

/// The sites of [`Stream`] in this module: noise number n of the fast steps is at `FAST_STEP + n`.
const FAST_STEP: u32 = 0x4C00_0000;
const INIT_LOGVAR: u32 = 0x4D00_0000;
const DRAW: u32 = 0x4D00_0001;

/// The posterior at the start of a batch: μ = 0, λ = `logvar` + `logvar_std`·N(0, 1), moments 0, the first noise and its
/// z, KL 0, and the clock's t = 0.
///
/// - Formula: `μ = 0`, `λ = logvar + logvar_std·N(0, 1)`, `z = μ + σ ⊙ ε`
/// - Source: Kong et al., arXiv 2502.01567, algorithm 1
///
/// Ins: `samples` `i32[B]`; tests may add `noise` `[T', B, S, d]`.
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

/// The rule by which a fast step moves the posterior: see [`LatentStep`].
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// AdamW on both gradients of the NELBO; the weight decay applies to λ too. Memory-bound: eight tensors in, seven
    /// or eight out.
    AdamW(adamw::Rule),
    /// The natural gradient: μ moves in units of the posterior's variance, which follows the measured curvature of −log p.
    ///
    /// The mean of d_z ⊙ ε / σ over ε equals the mean of the curvature ∂²(−log p)/∂z² (Stein's lemma). So this estimate
    /// is unbiased, unlike squares of the gradient, and the rule rests where the precision is one plus the mean curvature:
    /// at the optimum of the bound. The moments of λ are unused.
    ///
    /// The estimate is noisy, and a precision below one is cut off. So a number of z that the text does not depend on, whose
    /// gradient is noise of deviation s ≤ 1, costs some KL: 0.06 s² nats after T = 8 steps, 0.04 s² after 16 and 0.02 s² after
    /// 64, for beta 0.6 and rates that fall linearly from 0.35 to 0.05.
    ///
    /// Memory-bound: six tensors in, five or six out.
    Natural {
        /// Decay of the mean gradient.
        beta: f64,
    },
}

/// The number of steps without curvature that the natural gradient's mean curvature counts before the first. Without
/// them the precision after a single noisy estimate is wild, and so is the first move.
const GUARD: u32 = 2;

/// One fast step: it moves μ and λ, and computes the next noise and the next z, in one pass.
/// ```text
/// kl_b  = ½ Σ (μ² + σ² − λ − 1)             before the step, as in `GaussianKl`
/// latent_adamw:
/// g_μ   = d_z + μ
/// g_λ   = ½ (d_z ⊙ ε ⊙ σ + σ² − 1)
/// μ, λ  : AdamW at rates[t]                 see `adamw`; t counts from 0
/// latent_natural:
/// ĝ     : mean of d_z over the steps so far, weighted by powers of beta
/// ĥ     : the same of d_z ⊙ ε / σ, after two steps of 0, each step weighted by its number 1, 2, 3, …
/// P     = 1 + max(ĥ, 0)
/// μ     ← μ − rates[t] (ĝ + μ) / P
/// λ     ← −ln P
/// both:
/// t     ← t + 1
/// ε     : that of step t                    see `Renewal`
/// z     = μ + σ ⊙ ε
/// ```
/// - Formula: above
/// - Source: Kong et al., arXiv 2502.01567, algorithm 1; `latent_natural` after the variational online Newton method of Khan et
///   al., arXiv 1806.04854
///
/// Drawing noise takes about as long as the memory traffic. The cost counts a step that draws.
#[derive(Clone, Copy, Debug)]
pub struct LatentStep {
    /// The noise of the fast steps.
    pub noise: Noise,
    /// The rule that moves the posterior.
    pub rule: Rule,
}

impl Update for LatentStep {
    fn name(&self) -> &'static str {
        match self.rule {
            Rule::AdamW(_) => "latent_adamw",
            Rule::Natural { .. } => "latent_natural",
        }
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let partial = cx.scratch_at(DType::F32, cuda::partials(ins[0].shape()));
            return cuda::fast_step(&**gpu, self, ins, state, partial);
        }
        let [d_z, rates, samples, table @ ..] = ins else { unreachable!("three inputs or four") };
        let (t, round) = read_clock(&state[9]);
        let next = t + 1;
        state[9].as_mut_slice::<i32>()[0] += 1;
        with_real!(d_z.dtype(), T => {
            let supply = self.noise.supply::<T>(next, round, samples, table, &state[7]);
            let rate = rates.as_slice::<T>()[t as usize];
            let rows = cx.scratch::<T>(d_z.shape().rows());
            let [state @ .., kl, _] = state else { unreachable!("ten buffers of state") };
            let (d_z, state) = (d_z.as_slice(), State::of(state));
            match self.rule {
                Rule::AdamW(rule) => {
                    let rule = cpu::AdamW { step: rule.step(rate.to_f64(), next) };
                    cpu::step(rule, d_z, supply, state, rows);
                }
                Rule::Natural { beta } => {
                    // The share of the last of n numbers weighted by 1 … n.
                    let share = 2.0 / f64::from(next + GUARD + 1);
                    let rule = cpu::Natural {
                        rate,
                        beta: T::from_f64(beta),
                        rest: T::from_f64(1.0 - beta),
                        gain: T::from_f64(1.0 / (1.0 - beta.powi(next as i32))),
                        kept: T::from_f64(1.0 - share),
                        share: T::from_f64(share),
                    };
                    cpu::step(rule, d_z, supply, state, rows);
                }
            }
            cpu::sum_rows(rows, kl.as_mut_slice());
        });
    }

    fn scratch(&self, device: &Device, ins: &[Spec], _state: &[Spec]) -> usize {
        scratch_bytes(device, ins[0])
    }

    fn cost(&self, ins: &[Spec], _state: &[Spec]) -> Cost {
        let (n, bytes) = (ins[0].shape.numel() as u64, ins[0].bytes() as u64);
        // Operations per number, and tensors that are read and written.
        let (flops, tensors) = match self.rule {
            Rule::AdamW(_) => (cpu::GRADIENT_FLOPS + 2 * adamw::cpu::FLOPS, 15),
            Rule::Natural { .. } => (cpu::NATURAL_FLOPS, 11),
        };
        let (noise, moved) = match (self.noise.renewal, ins.len() > 3) {
            (Renewal::Fixed, _) => (0, 0),
            (_, false) => (cpu::NORMAL_FLOPS, 1),
            (_, true) => (0, 2),
        };
        Cost { flops: n * (flops + cpu::DRAW_FLOPS + noise), bytes: bytes * (tensors + moved) }
    }
}

/// A draw from the posterior, for scoring: independent of the noise of the fast steps and of other draws.
///
/// Ins: `mu`, `logvar` `[B, S, d]`, `samples` `i32[B]`, `draw` `i32[1]`, the number of the draw. State: `eps`, `z`
/// `[B, S, d]`, and `log_ratio` `[B]` in nats, for importance weights (Burda et al., arXiv 1509.00519):
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
            let partial = cx.scratch_at(DType::F32, cuda::partials(ins[0].shape()));
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

/// The clock's two numbers.
fn read_clock(clock: &Buffer) -> (u32, i32) {
    let &[t, round] = clock.as_slice::<i32>() else { unreachable!("fast step and round") };
    (t as u32, round)
}

/// Scratch memory for the partial sums of a number per sample of `[B, S, d]`.
fn scratch_bytes(device: &Device, latents: Spec) -> usize {
    match device {
        Device::Cpu(_) => latents.shape.rows() * latents.dtype.size(),
        Device::Cuda(_) => cuda::partials(latents.shape) * DType::F32.size(),
    }
}
