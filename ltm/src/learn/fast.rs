//! Fast learning: T steps on the posterior (μ, λ) of every sample, with the decoder frozen.

use crate::config::{self, FastConfig, ModelConfig, Posterior, Schedule};
use crate::learn::{Inputs, Loss};
use crate::model::Params;
use autograd::{Id, NonFinite, Phase, Plan, Request, Store};
use engine::{Buffer, DType, Result, Spec};
use kernels::adamw;
use kernels::latents::{LatentInit, LatentStep, Noise, Renewal, Rule};

/// The posterior of every sample of a batch, with the state of its optimiser; all `[B, L·K, d]` unless stated
/// otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Latents {
    /// Means μ.
    pub mu: Id,
    /// λ = log σ².
    pub logvar: Id,
    /// First and second moments of AdamW for μ, then for λ; for the natural gradient its two means, and the rest
    /// unused.
    pub moments: [Id; 4],
    /// The noise that made `z`.
    pub eps: Id,
    /// z = μ + σ ⊙ ε.
    pub z: Id,
    /// `[B]`: KL of the posterior before the latest update.
    pub kl: Id,
    /// `[2]` i32: fast step t, and the slow step or evaluation round that keys the noise.
    pub clock: Id,
    /// `[T]`: learning rate of each fast step.
    pub rates: Id,
}

impl Latents {
    fn new(spec: Spec, steps: usize, store: &mut Store) -> Self {
        let [mu, logvar, eps, z, moments @ ..]: [Id; 8] = std::array::from_fn(|_| store.alloc(spec));
        Self {
            mu,
            logvar,
            moments,
            eps,
            z,
            kl: store.alloc(Spec::new(spec.dtype, &spec.shape.dims()[..1])),
            clock: store.alloc(Spec::new(DType::I32, &[2])),
            rates: store.alloc(Spec::new(spec.dtype, &[steps.max(1)])),
        }
    }

    /// KL(q(z|x) ‖ N(0, I)) of the current posterior per sample, in nats: ½ Σ (μ² + σ² − λ − 1).
    pub fn posterior_kl(&self, store: &Store) -> Result<Vec<f64>> {
        let (parts, [_, latents, width]) = self.kl(store)?;
        Ok(parts.chunks(latents * width).map(|sample| sample.iter().sum()).collect())
    }

    /// The KL of every latent vector of every sample, `[B][L·K]`, in nats; they sum to [`posterior_kl`](Self::posterior_kl).
    pub fn kl_by_latent(&self, store: &Store) -> Result<Vec<Vec<f64>>> {
        let (parts, [_, latents, width]) = self.kl(store)?;
        let sums: Vec<f64> = parts.chunks(width).map(|vector| vector.iter().sum()).collect();
        Ok(sums.chunks(latents).map(<[f64]>::to_vec).collect())
    }

    /// The KL of every number of the latents, and their sizes [B, L·K, d].
    fn kl(&self, store: &Store) -> Result<(Vec<f64>, [usize; 3])> {
        let (mu, logvar) = (store.get(self.mu), store.get(self.logvar));
        let &[batch, latents, width] = mu.shape().dims() else { unreachable!("[B, L·K, d]") };
        let numbers = mu.read_f64()?.into_iter().zip(logvar.read_f64()?);
        let parts = numbers.map(|(m, l)| 0.5 * (m * m + l.exp() - l - 1.0)).collect();
        Ok((parts, [batch, latents, width]))
    }

    fn state(&self) -> [Id; 10] {
        let [m_mu, v_mu, m_logvar, v_logvar] = self.moments;
        [self.mu, self.logvar, m_mu, v_mu, m_logvar, v_logvar, self.eps, self.z, self.kl, self.clock]
    }
}

/// Options of a fast loop besides the configuration.
#[derive(Clone, Debug, Default)]
pub struct FastOptions {
    /// The run's seed.
    pub seed: u64,
    /// Buffers, one per parameter, that accumulate the decoder's gradients (the public reference code). Without them,
    /// these gradients are not computed (Algorithm 1).
    pub piles: Vec<Id>,
    /// For tests: a table `[T, B, L·K, d]` of noise instead of random numbers, see [`Noise`].
    pub noise_table: Option<Id>,
}

/// The natural gradient's decay of its mean gradient.
const NATURAL: f64 = 0.6;

/// Added by the linear schedule to the rate of every step, so that the last steps still move.
const FLOOR: f64 = 0.05;

impl FastConfig {
    /// The rate of fast step `t`, counted from 0, for a sample fitted at `rate`: by the schedule.
    pub fn rate(&self, rate: f64, t: usize) -> f64 {
        match self.schedule {
            Schedule::Constant => rate,
            Schedule::Cosine => {
                let phase = std::f64::consts::PI * t as f64 / self.steps as f64;
                rate * (0.1 + 0.9 * 0.5 * (1.0 + phase.cos()))
            }
            Schedule::Linear => rate * (1.0 - t as f64 / self.steps as f64) + FLOOR,
        }
    }
}

/// From this number of fast steps on, packing the weights pays.
const WORTH_PREPARING: usize = 3;

/// The fast loop for batches of one size: a plan and the latents that it works on.
#[derive(Debug)]
pub struct Fast {
    /// The posterior.
    pub latents: Latents,
    /// Print it to audit a fast step.
    pub plan: Plan,
    nll: Id,
    config: FastConfig,
    /// The number of steps that it was planned for; `config` has the current number.
    room: usize,
}

impl Fast {
    /// Records and plans the loop.
    pub fn new(
        model: &ModelConfig,
        fast: &FastConfig,
        params: &Params,
        inputs: &Inputs,
        store: &mut Store,
        options: &FastOptions,
    ) -> Result<Self> {
        let spec = Spec::new(params.dtype, &[inputs.batch, model.latent_count(), model.dim]);
        let latents = Latents::new(spec, fast.steps, store);
        let one = ("one", Phase::Update, inputs.one);
        let Loss { graph, z, loss, nll, weights } = Loss::record(model, params, inputs, Some(latents.z), one, store)?;
        let z = z.expect("the latents that it was recorded at");
        let request = Request {
            root: Some(loss),
            wants: vec![z],
            accumulate: weights.into_iter().zip(options.piles.iter().copied()).collect(),
            keep: vec![nll],
            prepare: fast.steps >= WORTH_PREPARING,
            ..Request::default()
        };
        let mut plan = Plan::new(&graph, store, &request)?;

        let renewal = match fast.noise {
            config::Noise::Fresh => Renewal::Fresh,
            config::Noise::Antithetic => Renewal::Antithetic,
            config::Noise::Fixed => Renewal::Fixed,
        };
        let noise = Noise { seed: options.seed, renewal };
        let init = LatentInit { noise, logvar: fast.init_logvar, logvar_std: fast.init_logvar_std };
        let table = options.noise_table.as_slice();
        let state = latents.state();
        plan.push_update(store, Phase::Batch, "latents", init, &[&[inputs.samples], table].concat(), &state);
        let ins = [&[plan.grad(z), latents.rates, inputs.samples], table].concat();
        let rule = match fast.posterior {
            Posterior::Adamw => {
                let FastConfig { beta1, beta2, eps, weight_decay, .. } = *fast;
                Rule::AdamW(adamw::Rule { beta1, beta2, eps, weight_decay })
            }
            Posterior::Natural => Rule::Natural { beta: NATURAL },
        };
        plan.push_update(store, Phase::Step, "latents", LatentStep { noise, rule }, &ins, &state);
        let nll = plan.value(nll);
        Ok(Self { latents, plan, nll, config: fast.clone(), room: fast.steps })
    }

    /// Sets another number of steps, as if it had been planned for them.
    ///
    /// # Panics
    /// If they are more than it was planned for.
    pub fn take_steps(&mut self, steps: usize) {
        assert!(steps <= self.room, "{steps} steps of {}", self.room);
        self.config.steps = steps;
    }

    /// Fits the posterior of the loaded batch: the weights' and the batch's phases, then `steps` steps at `rate`.
    /// `round` keys the noise. Calls `after` after every step with its number, counted from 0.
    ///
    /// # Panics
    /// If the loop was planned for fewer steps.
    pub fn fit(&self, store: &mut Store, rate: f64, round: u32, after: impl FnMut(usize, &Store)) {
        self.begin(store, rate, round);
        self.steps(store, after);
    }

    /// Like [`fit`](Self::fit) from given means and log-variances instead of the initial ones.
    pub fn fit_from(
        &self,
        store: &mut Store,
        (mu, logvar): (Id, Id),
        rate: f64,
        after: impl FnMut(usize, &Store),
    ) -> Result<()> {
        self.begin(store, rate, 0);
        store.copy(mu, self.latents.mu);
        store.copy(logvar, self.latents.logvar);
        let of = |id: Id| store.get(id).read_f64();
        let posterior = of(mu)?.into_iter().zip(of(logvar)?).zip(of(self.latents.eps)?);
        let z: Vec<f64> = posterior.map(|((m, l), e)| m + (0.5 * l).exp() * e).collect();
        store.get_mut(self.latents.z).set_f64(&z);
        self.steps(store, after);
        Ok(())
    }

    fn begin(&self, store: &mut Store, rate: f64, round: u32) {
        self.start(store, rate, round);
        for phase in [Phase::Update, Phase::Batch] {
            self.plan.run(store, phase);
        }
    }

    fn steps(&self, store: &mut Store, mut after: impl FnMut(usize, &Store)) {
        for t in 0..self.config.steps {
            self.plan.run(store, Phase::Step);
            after(t, store);
        }
    }

    /// Like [`fit`](Self::fit), but stops at the first non-finite number and returns it with its fast step (0 for work
    /// before the first).
    pub fn fit_checked(&self, store: &mut Store, rate: f64, round: u32) -> Result<Option<(usize, NonFinite)>> {
        self.start(store, rate, round);
        let before = [(0, Phase::Update), (0, Phase::Batch)];
        for (t, phase) in before.into_iter().chain((0..self.config.steps).map(|t| (t, Phase::Step))) {
            if let Some(found) = self.plan.run_checked(store, phase)? {
                return Ok(Some((t, found)));
            }
        }
        Ok(None)
    }

    fn start(&self, store: &mut Store, rate: f64, round: u32) {
        let rates: Vec<f64> = (0..self.room.max(1)).map(|t| self.config.rate(rate, t)).collect();
        store.get_mut(self.latents.rates).set_f64(&rates);
        store.get_mut(self.latents.clock).write(&[0, round as i32]);
    }

    /// Negative log-likelihood per sample in nats at the latest step's z, before its update.
    pub fn nll(&self, store: &Store) -> Result<Vec<f64>> {
        per_sample(store.get(self.nll))
    }

    /// KL per sample in nats before the latest update.
    pub fn kl(&self, store: &Store) -> Result<Vec<f64>> {
        store.get(self.latents.kl).read_f64()
    }
}

/// Sums `[B, N]` over tokens in f64.
pub fn per_sample(nll: &Buffer) -> Result<Vec<f64>> {
    Ok(row_sums(&nll.read_f64()?, nll.shape().last()))
}

/// The sum of every row of so many values.
pub fn row_sums(values: &[f64], length: usize) -> Vec<f64> {
    values.chunks(length).map(|row| row.iter().sum()).collect()
}
