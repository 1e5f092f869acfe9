//! Training by Algorithm 1, one batch after the other, and the state for resuming exactly.

use crate::config::{self, Config, SlowGradient, Work};
use crate::data::{Batch, checksum};
use crate::learn::{Draw, Fast, GradientSum, Inputs, Learner, Masked, Slow};
use crate::model::{Param, Params};
use crate::safetensors::{self, SafeTensors};
use autograd::{Id, NonFinite, Store};
use engine::{Alone, Collective, Device, Error, Result};
use rayon::prelude::*;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The largest useful magnitude of a weight: beyond it squares are not finite, and no text can be scored.
const LARGEST: f32 = 1e19;

/// Advice for finite numbers. A resumed run cannot change its rates.
pub(crate) const LOWER_RATES: &str = "a new run with lower rates (slow.rate, fast.rate_start, fast.rate_end)";

/// A model being trained: everything that one step changes.
#[derive(Debug)]
pub struct Trainer {
    /// The run's settings.
    pub config: Config,
    /// All memory.
    pub store: Store,
    /// The decoder's parameters.
    pub params: Params,
    /// The fast loop; a model that infers no latents has none.
    pub fast: Option<Fast>,
    /// Further draws of the latents for the same batch; `None` if one is enough.
    draw: Option<Draw>,
    /// μ and λ of every part of the batch, for these draws, if it has several parts.
    fits: Vec<[Id; 2]>,
    /// Where batches are loaded for a model of masked diffusion, in place of `inputs`.
    pub masked: Option<Masked>,
    /// The slow step.
    pub slow: Slow,
    /// The sum of the gradients of a batch's parts.
    sum: GradientSum,
    /// Steps done.
    pub step: u64,
    /// Whether the last step failed because of a non-finite number.
    pub stopped: bool,
    /// Where batches are loaded.
    pub inputs: Inputs,
    /// The processes that share the parts of a batch.
    ranks: Arc<dyn Collective>,
}

/// The result of one step; nats are sums over the batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Number of this step, from 1.
    pub step: u64,
    /// −log p(x|z) at a draw from the final posterior, before the first update.
    pub nll: f64,
    /// KL of the final posteriors; 0 if none are inferred.
    pub kl: f64,
    /// Targets scored.
    pub tokens: u64,
    /// Bytes of text of these targets.
    pub bytes: u64,
    /// Global norm of the decoder's gradient before clipping, at the first update.
    pub grad_norm: f64,
    /// Slow learning rate.
    pub rate: f64,
    /// Fast learning rate of the first fast step.
    pub fast_rate: f64,
    /// The reason if the update was skipped.
    pub skipped: Option<String>,
}

impl Trainer {
    /// A fresh model on `device` with initial weights under the configuration's seed.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or the device lacks kernels or memory for it.
    pub fn new(config: Config, device: &Device) -> Result<Self> {
        Self::among(config, device, Arc::new(Alone))
    }

    /// The same as one of several processes, each of which computes as many parts of every batch.
    ///
    /// # Errors
    /// Also if the parts cannot be shared equally.
    pub fn among(config: Config, device: &Device, ranks: Arc<dyn Collective>) -> Result<Self> {
        let config = config.resolved()?;
        let parts = config.train.parts_of_each(ranks.size())?;
        config.check_training()?;
        config.check_device(device, Work::Training)?;
        let mut store = Store::new(config.train.precision.on(device));
        let activations = config.train.precision.stored_on(device);
        let learner = Learner::new(&config, activations, parts, &mut store)?;
        let Learner { params, inputs, fast, draw, fits, masked, slow, sum, .. } = learner;
        config.check_room(&store, Work::Training)?;
        params.init(&mut store, config.train.seed);
        Ok(Self { config, store, params, inputs, fast, draw, fits, masked, slow, sum, step: 0, stopped: false, ranks })
    }

    /// The slow learning rate of step `step` (from 1): linear warm-up, then a cosine down to the least rate.
    pub fn slow_rate(&self, step: u64) -> f64 {
        let (slow, total) = (&self.config.slow, self.config.train.steps as f64);
        let (step, warmup) = (step as f64, slow.warmup as f64);
        if step <= warmup {
            return slow.rate * step / warmup;
        }
        let progress = ((step - warmup) / (total - warmup).max(1.0)).min(1.0);
        slow.min_rate + 0.5 * (slow.rate - slow.min_rate) * (1.0 + (std::f64::consts::PI * progress).cos())
    }

    /// The fast learning rate during step `step`: linear over training.
    pub fn fast_rate(&self, step: u64) -> f64 {
        let progress = (step.saturating_sub(1) as f64 / (self.config.train.steps as f64 - 1.0).max(1.0)).min(1.0);
        self.config.fast.rate_start + progress * (self.config.fast.rate_end - self.config.fast.rate_start)
    }

    /// Loads part number `part` of a batch, for update number `update` of the run.
    ///
    /// # Errors
    /// If the batch does not fit.
    pub fn load(&mut self, batch: &Batch, part: usize, update: u64) -> Result<()> {
        let (rows, store) = (self.config.train.rows(), &mut self.store);
        if let Some(masked) = &self.masked {
            return masked.load(store, batch, part, update as u32);
        }
        if batch.samples.len() != self.config.train.batch {
            let (found, must) = (batch.samples.len(), self.config.train.batch);
            return Err(Error::new(format!("a batch of {found} samples, must be {must}")));
        }
        self.inputs.load(store, &self.config.model, &batch.part(rows, part))?;
        self.inputs.count(store, batch);
        Ok(())
    }

    /// Fits the posteriors of a batch of one part like the next step, without other changes.
    ///
    /// # Errors
    /// If the batch does not fit.
    pub fn fit(&mut self, batch: &Batch, after: impl FnMut(usize, &Store)) -> Result<()> {
        self.fit_part(batch, 0, after)
    }

    fn fit_part(&mut self, batch: &Batch, part: usize, after: impl FnMut(usize, &Store)) -> Result<()> {
        let step = self.step + 1;
        self.load(batch, part, (step - 1) * self.config.slow.updates as u64)?;
        let rate = self.fast_rate(step);
        if let Some(fast) = &self.fast {
            fast.fit(&mut self.store, rate, step as u32, after);
        }
        Ok(())
    }

    /// The gradient at update number `update` of the next step, summed over the parts of the batch; returns the batch's NLL and KL
    /// in nats. The first update fits the posteriors, later ones draw from them.
    fn gradient(&mut self, batch: &Batch, update: u64) -> Result<(f64, f64)> {
        let number = self.step * self.config.slow.updates as u64 + update;
        let parts = self.config.train.parts() / self.ranks.size();
        // NLL and KL of every part, in their order.
        let mut costs = Vec::new();
        for own in 0..parts {
            let part = self.ranks.rank() * parts + own;
            let mut kl = 0.0;
            if self.config.slow.gradient == SlowGradient::Trajectory {
                self.slow.clear(&mut self.store);
            }
            if update == 0 {
                self.fit_part(batch, part, |_, _| ())?;
            } else if parts > 1 || self.masked.is_some() {
                self.load(batch, part, number)?;
            }
            let store = &mut self.store;
            if let Some(fast) = &self.fast {
                let fitted = [fast.latents.mu, fast.latents.logvar];
                let kept = self.fits.get(own).map(|&kept| if update == 0 { (fitted, kept) } else { (kept, fitted) });
                kept.iter().for_each(|(from, to)| from.iter().zip(to).for_each(|(&from, &to)| store.copy(from, to)));
                if update == 0 {
                    kl = fast.latents.posterior_kl(store)?.iter().sum::<f64>();
                }
            }
            if update > 0
                && let Some(draw) = &self.draw
            {
                draw.run(store, number as u32)?;
            }
            self.slow.gradient(store);
            let nll = match &self.masked {
                // The weights of masks differ.
                Some(_) => self.slow.loss(store)? * batch.scored() as f64,
                None => self.slow.nll(store)?.iter().sum::<f64>(),
            };
            self.sum.add(store);
            costs.extend([nll, kl].map(f64::to_bits));
        }
        // Before the gradients, so that a process which waits here waits for the work of another.
        let costs: Vec<f64> = self.ranks.gather(&costs)?.into_iter().map(f64::from_bits).collect();
        if self.ranks.size() > 1 {
            self.ranks.sum(&mut self.store.all_of(&self.slow.grads))?;
        }
        Ok(costs.chunks(2).fold((0.0, 0.0), |(nll, kl), part| (nll + part[0], kl + part[1])))
    }

    /// Gives every process the weights, the moments and the step of process 0.
    ///
    /// # Errors
    /// If a process is gone.
    pub fn share(&mut self) -> Result<()> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let moments = self.slow.moments.iter().flat_map(|&(m, v)| [Some(m), v]).flatten();
        for id in self.params.iter().map(|p| p.id).chain(moments).collect::<Vec<_>>() {
            self.ranks.broadcast(self.store.get_mut(id))?;
        }
        self.step = self.ranks.gather(&[self.step])?[0];
        Ok(())
    }

    /// One step: fits the posteriors of the batch, then updates the decoder, `slow.updates` times.
    ///
    /// # Errors
    /// If the batch does not fit, or a number is not finite and the configuration says to stop or the weights are to
    /// blame. Then the weights are unchanged.
    pub fn train(&mut self, batch: &Batch) -> Result<StepReport> {
        let step = self.step + 1;
        let rate = self.slow_rate(step);
        let fast_rate = self.fast_rate(step);
        self.stopped = false;
        let (tokens, bytes) = (batch.scored(), batch.bytes());
        let mut report =
            StepReport { step, nll: 0.0, kl: 0.0, tokens, bytes, grad_norm: 0.0, rate, fast_rate, skipped: None };
        let updates = self.config.slow.updates as u64;
        for update in 0..updates {
            let (nll, kl) = self.gradient(batch, update)?;
            let grad_norm = self.slow.grad_norm(&mut self.store)?;
            if update == 0 {
                // Later numbers are of weights that have seen the batch.
                (report.nll, report.kl, report.grad_norm) = (nll, kl, grad_norm);
            }
            if nll.is_finite() && kl.is_finite() && grad_norm.is_finite() {
                self.slow.apply(&mut self.store, rate, self.step * updates + update + 1);
                continue;
            }
            // Non-finite weights are not the fault of this batch.
            self.check_finite()?;
            if update > 0 {
                // The step is done in part, so it counts. If the fault stays, the next step finds it at its first update.
                let left = updates - update;
                report.skipped =
                    Some(format!("step {step}: the loss is not finite at update {}: {left} left out", update + 1));
                break;
            }
            let place = self.find_non_finite(batch, fast_rate, step)?;
            let message = format!("step {step}: the loss is not finite: {place}");
            if self.config.train.non_finite == config::NonFinite::Stop {
                self.stopped = true;
                return Err(Error::new(format!(
                    "{message}; the weights are unchanged by this step; try {LOWER_RATES}"
                )));
            }
            report.skipped = Some(message);
            break;
        }
        self.step = step;
        Ok(report)
    }

    /// Checks that weights and moments are finite, and that the squares of weights are, because otherwise steps and
    /// checkpoints are useless. Copies them from a GPU.
    ///
    /// # Errors
    /// If they are not, or the device has failed.
    pub fn check_finite(&self) -> Result<()> {
        let [m, v] = self.moments();
        for (prefix, set) in [("", self.params.clone()), m, v] {
            for p in set.iter() {
                check_values(prefix, p, self.store.get(p.id).on_host()?.as_slice()).map_err(|error| {
                    let place = format!("training has diverged: after step {}", self.step);
                    Error::new(format!("{place}, {error}; try a new run with a lower slow.rate"))
                })?;
            }
        }
        Ok(())
    }

    /// Repeats the step with the same noise, and checks every number.
    fn find_non_finite(&mut self, batch: &Batch, fast_rate: f64, step: u64) -> Result<String> {
        let sequence = self.masked.map_or(self.config.model.seq, |masked| masked.positions());
        let rows = self.config.train.rows();
        for part in 0..self.config.train.parts() {
            let describe = |e: &NonFinite| match row_of(e, rows, sequence).map(|row| part * rows + row) {
                Some(row) => format!("{}, sample {} (row {row} of the batch)", e.place, batch.samples[row].id),
                None => format!("{}, a value shared by all samples", e.place),
            };
            self.load(batch, part, self.step * self.config.slow.updates as u64)?;
            let store = &mut self.store;
            self.slow.clear(store);
            if let Some(fast) = &self.fast
                && let Some((t, e)) = fast.fit_checked(store, fast_rate, step as u32)?
            {
                return Ok(format!("fast step {}, {}", t + 1, describe(&e)));
            }
            if let Some(e) = self.slow.gradient_checked(store)? {
                return Ok(format!("decoder gradient, {}", describe(&e)));
            }
        }
        Ok("the gradient's norm overflows".into())
    }

    /// A checksum of the state of training: weights and moments. `None` on a GPU, where they would have to be copied.
    pub fn checksum(&self) -> Option<u64> {
        let moments = self.slow.moments.iter().flat_map(|&(m, v)| [Some(m), v]).flatten();
        let ids = self.params.iter().map(|p| p.id).chain(moments);
        let sum = |id: Id| checksum::checksum(self.store.get(id).as_bytes());
        matches!(self.store.device, Device::Cpu(_)).then(|| checksum::combine(ids.map(sum)))
    }

    /// First and second moments of the optimiser, each in the shape of its parameter, and the prefix of their names. Muon
    /// has no second moments.
    fn moments(&self) -> [(&'static str, Params); 2] {
        let moments = || self.slow.moments.iter();
        let (m, v) = (moments().map(|&(m, _)| Some(m)), moments().map(|&(_, v)| v));
        [("m.", self.params.with_ids(m)), ("v.", self.params.with_ids(v))]
    }

    /// Writes the weights as safetensors.
    pub fn write_weights(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write_parameters(&self.store, &[("", self.params.clone())], out)
    }

    /// Writes the optimiser's moments as safetensors.
    pub fn write_moments(&self, out: &mut dyn io::Write) -> io::Result<()> {
        write_parameters(&self.store, &self.moments(), out)
    }

    /// Loads weights, moments and the step count from a checkpoint's files.
    ///
    /// # Errors
    /// If a file is damaged or describes another model.
    pub fn restore(&mut self, weights: &Path, moments: &Path, step: u64) -> Result<()> {
        self.params.load(&mut self.store, &SafeTensors::open(weights)?, "").map_err(|e| e.at(weights.display()))?;
        let file = SafeTensors::open(moments)?;
        for (prefix, target) in self.moments() {
            target.load(&mut self.store, &file, prefix).map_err(|e| e.at(moments.display()))?;
        }
        self.step = step;
        Ok(())
    }
}

/// The row of the batch with a bad number, if its value has a row per sample or per token.
fn row_of(bad: &NonFinite, batch: usize, sequence: usize) -> Option<usize> {
    let dims = bad.shape.dims();
    let per_sample = match dims {
        [first, _, _, ..] if *first == batch => bad.shape.numel() / batch,
        [first, second] if *first == batch && *second == sequence => sequence,
        [rows] if *rows == batch * sequence => sequence,
        _ => return None,
    };
    Some(bad.index / per_sample)
}

/// Checks values of weights, or of the moments with this prefix.
fn check_values(prefix: &str, p: &Param, values: &[f32]) -> Result<()> {
    let (what, largest) = match prefix {
        "" => ("weights", LARGEST),
        "m." => ("first moments", f32::MAX),
        _ => ("second moments", f32::MAX),
    };
    // False for NaN.
    if values.par_iter().all(|x| x.abs() <= largest) {
        return Ok(());
    }
    Err(Error::new(format!("{} has NaN, infinite or huge {what} (above {largest:e})", p.name)))
}

/// Writes sets of parameters as safetensors, split and named as in the reference code, with a prefix for each set's
/// names.
///
/// # Errors
/// Of the device and the writer, and values that are useless, see [`Trainer::check_finite`]. Then nothing is written.
pub fn write_parameters(store: &Store, sets: &[(&str, Params)], out: &mut dyn io::Write) -> io::Result<()> {
    let all: Vec<_> = sets.iter().flat_map(|(prefix, set)| set.iter().map(move |p| (prefix, p))).collect();
    let on_host = |(_, p): &(_, &Param)| store.get(p.id).on_host().map_err(io::Error::other);
    let buffers = all.iter().map(on_host).collect::<io::Result<Vec<_>>>()?;
    let mut tensors = Vec::new();
    for ((prefix, p), buffer) in all.iter().zip(&buffers) {
        let values = buffer.as_slice::<f32>();
        check_values(prefix, p, values).map_err(io::Error::other)?;
        tensors.extend(p.parts().map(|part| (format!("{prefix}{}", part.name), part.shape, &values[part.range])));
    }
    safetensors::write(out, &tensors)
}
