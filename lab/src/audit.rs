//! The audit of a model's numbers: what every protocol prints at T fast steps, whether it is a bound, what a posterior's own
//! noise hides, and where the KL goes.
//!
//! A posterior that is scored at the noise that it was fitted to (`fixed`) pays its KL and then reads the text off one known
//! point; nothing says what it would pay elsewhere. So every posterior here is also scored at noise that it has not seen. The
//! difference of the two NLLs is what the reported number leaves out.

use autograd::Store;
use engine::{Error, Result};
use ltm::config::{Config, FastConfig, Noise, Work};
use ltm::data::{Batch, Order, Sampler, Source};
use ltm::evaluate::{halves, log_mean, mean_and_noise};
use ltm::learn::{Fast, FastOptions, Inputs, Score, Scores};
use ltm::model::Params;
use std::sync::Arc;

/// How to audit.
#[derive(Clone, Debug)]
pub struct Options {
    /// The numbers T of fast steps, each at least 1.
    pub steps: Vec<usize>,
    /// Draws S, at least 2: one says nothing of its error.
    pub draws: usize,
    /// Sequences, the first ones of the source.
    pub sequences: u64,
}

/// Numbers by sequence, in the order of the source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Fast steps T.
    pub steps: usize,
    /// The posterior fitted with the run's own kind of noise, scored with fresh draws.
    pub fitted: Posterior,
    /// The posterior fitted to one noise throughout, scored with fresh draws.
    pub fixed: Posterior,
    /// −log of the mean importance weight of the first posterior's draws.
    pub iwae: Vec<f64>,
    /// Cost of the second half of each sequence, given a posterior fitted to the first.
    pub prefix: Vec<f64>,
}

/// What a posterior costs, by sequence, in nats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Posterior {
    /// Mean NLL over fresh draws: at noise that it was not fitted to.
    pub nll: Vec<f64>,
    /// NLL at the z that its last step left.
    pub own_nll: Vec<f64>,
    /// KL to the prior.
    pub kl: Vec<f64>,
    /// Mean KL over sequences of every latent vector, the K of the first layer first.
    pub kl_by_latent: Vec<f64>,
}

impl Posterior {
    /// NLL + KL at fresh noise: a bound in expectation.
    pub fn bound(&self) -> Vec<f64> {
        self.nll.iter().zip(&self.kl).map(|(nll, kl)| nll + kl).collect()
    }

    /// NLL + KL at its own noise: what `fixed` reports of a posterior that was fitted to one noise. Not a bound.
    pub fn reported(&self) -> Vec<f64> {
        self.own_nll.iter().zip(&self.kl).map(|(nll, kl)| nll + kl).collect()
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// One for every T.
    pub rows: Vec<Row>,
    /// −log p of each sequence under the process that made it, in nats; empty if it is not known.
    pub exact: Vec<f64>,
    /// Tokens scored, of all sequences.
    pub tokens: u64,
    /// Bytes scored, of all sequences.
    pub bytes: u64,
}

/// A fast loop with what scores its posterior.
struct Probe {
    fast: Fast,
    score: Score,
}

impl Probe {
    fn new(config: &Config, noise: Noise, inputs: &Inputs, params: &Params, store: &mut Store) -> Result<Self> {
        let fast_config = FastConfig { noise, ..config.fast.clone() };
        let options = FastOptions { seed: config.train.seed, ..FastOptions::default() };
        let fast = Fast::new(&config.model, &fast_config, params, inputs, store, &options)?;
        let score = Score::new(&config.model, params, inputs, Some(&fast.latents), config.train.seed, store)?;
        Ok(Self { fast, score })
    }

    fn draws(&self, store: &mut Store, draws: usize) -> Vec<Scores> {
        (0..draws as u32).map(|s| self.score.draw(store, s)).collect()
    }
}

/// Measures the first sequences of `source`; calls `progress` with the number of fast steps done, of all that there are to
/// do, behind every fit.
///
/// # Errors
/// A model without latents, settings that cannot be, sequences that cannot be read, numbers that are not finite.
pub fn audit(
    config: &Config,
    params: &Params,
    store: &mut Store,
    source: &Arc<dyn Source>,
    options: &Options,
    mut progress: impl FnMut(u64, u64),
) -> Result<Audit> {
    let most = options.steps.iter().copied().max().unwrap_or(0);
    if options.steps.contains(&0) || most == 0 || options.draws < 2 {
        return Err(Error::usage("an audit needs at least 1 fast step and 2 draws"));
    }
    let mut config = config.clone();
    config.fast.steps = most;
    config.resolved()?;
    let (rows, seq) = (config.train.batch, config.model.seq);
    let inputs = Inputs::new(rows, seq, params.dtype(), store);
    let mut fitted = Probe::new(&config, config.fast.noise, &inputs, params, store)?;
    let mut fixed = match config.fast.noise {
        Noise::Fresh => Some(Probe::new(&config, Noise::Fixed, &inputs, params, store)?),
        Noise::Fixed => None,
    };
    config.check_room(store, Work::Evaluation)?;

    let count = source.samples().map_or(options.sequences, |samples| samples.min(options.sequences));
    let fits = 2 + u64::from(fixed.is_some());
    let work = options.steps.iter().map(|&t| t as u64).sum::<u64>() * count.div_ceil(rows as u64) * fits;
    let mut done = 0;
    let mut audit = Audit { rows: Vec::new(), ..Audit::default() };
    audit.rows.extend(options.steps.iter().map(|&steps| Row { steps, ..Row::default() }));
    let mut sampler = Sampler::new(source.clone(), Order::Once)?;
    let mut batch = Batch::new(rows, seq);
    for first in (0..count).step_by(rows) {
        sampler.fill(first, &mut batch)?;
        for row in (0..rows).filter(|&row| first + row as u64 >= count) {
            batch.targets[row * seq..(row + 1) * seq].fill(-1);
            batch.samples[row].scored = 0;
        }
        let there: Vec<usize> = (0..rows).filter(|&b| batch.samples[b].scored > 0).collect();
        audit.exact.extend(there.iter().filter_map(|&b| batch.samples[b].nats));
        audit.tokens += batch.scored();
        audit.bytes += there.iter().map(|&b| batch.samples[b].bytes).sum::<u64>();
        let [prefix, rest] = halves(&batch);
        for row in &mut audit.rows {
            let mut step = |fits: u64| {
                done += fits * row.steps as u64;
                progress(done, work);
            };
            for probe in [Some(&mut fitted), fixed.as_mut()].into_iter().flatten() {
                probe.fast.take_steps(row.steps);
            }
            inputs.place(store, &config.model, &prefix)?;
            fitted.fast.fit(store, config.fast.rate_end, 0, |_, _| ());
            inputs.load(store, &config.model, &rest)?;
            fitted.score.begin(store);
            let draws = fitted.draws(store, options.draws);
            row.prefix.extend(there.iter().map(|&b| log_mean(&column(&draws, b, |d| &d.nll)).0));
            step(1);

            inputs.load(store, &config.model, &batch)?;
            let draws = measure(&fitted, &config, store, options, &there, &mut row.fitted);
            row.iwae.extend(there.iter().map(|&b| {
                let costs = draws.iter().map(|d| d.nll[b] + d.log_ratio[b]).collect::<Vec<_>>();
                log_mean(&costs).0
            }));
            step(1);
            match &fixed {
                Some(fixed) => {
                    measure(fixed, &config, store, options, &there, &mut row.fixed);
                    step(1);
                }
                // The run itself fits to one noise.
                None => row.fixed = row.fitted.clone(),
            }
        }
    }
    let sequences = audit.rows[0].iwae.len() as f64;
    for row in &mut audit.rows {
        for posterior in [&mut row.fitted, &mut row.fixed] {
            posterior.kl_by_latent.iter_mut().for_each(|kl| *kl /= sequences);
        }
        let all = [&row.iwae, &row.prefix, &row.fitted.bound(), &row.fixed.bound(), &row.fixed.reported()]
            .map(|v| v.to_vec());
        if all.iter().flatten().any(|x| !x.is_finite()) {
            return Err(Error::new(format!("a score at T = {} is not finite", row.steps)));
        }
    }
    Ok(audit)
}

/// Fits the batch that is loaded, scores the posterior at its own noise and at fresh noise, and adds up. Returns the draws.
fn measure(
    probe: &Probe,
    config: &Config,
    store: &mut Store,
    options: &Options,
    there: &[usize],
    posterior: &mut Posterior,
) -> Vec<Scores> {
    probe.fast.fit(store, config.fast.rate_end, 0, |_, _| ());
    let kl = probe.fast.latents.kl_by_latent(store);
    probe.score.begin(store);
    let own = probe.score.at(store, probe.fast.latents.z);
    let draws = probe.draws(store, options.draws);
    posterior.kl_by_latent.resize(kl[0].len(), 0.0);
    for &b in there {
        posterior.nll.push(mean_and_noise(&column(&draws, b, |d| &d.nll)).0);
        posterior.own_nll.push(own.nll[b]);
        posterior.kl.push(kl[b].iter().sum());
        posterior.kl_by_latent.iter_mut().zip(&kl[b]).for_each(|(sum, kl)| *sum += kl);
    }
    draws
}

/// A sample's numbers of all draws.
fn column(draws: &[Scores], b: usize, of: impl Fn(&Scores) -> &Vec<f64>) -> Vec<f64> {
    draws.iter().map(|draw| of(draw)[b]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{DType, Device};
    use ltm::evaluate::{Evaluator, Protocol};
    use ltm::run::{score, validation_stories};

    fn model() -> (Config, Params, Store) {
        let mut config = Config::preset("demo").unwrap();
        for (key, value) in [
            ("model.dim", "16"),
            ("model.heads", "2"),
            ("model.latents", "2"),
            ("train.batch", "2"),
            ("fast.steps", "3"),
        ] {
            config.set(key, value).unwrap();
        }
        let config = config.resolved().unwrap();
        let mut store = Store::new(Device::Cpu);
        let params = Params::new(&config.model, DType::F32, &mut store);
        params.init(&mut store, 5);
        (config, params, store)
    }

    /// Every column is what the protocol of that name prints.
    #[test]
    fn the_audit_prints_what_the_protocols_print() {
        let (config, params, mut store) = model();
        let source = validation_stories(config.model.seq, 3).unwrap();
        let options = Options { steps: vec![1, 3], draws: 2, sequences: 3 };
        let mut last = (0, 1);
        let audit = audit(&config, &params, &mut store, &source, &options, |done, work| last = (done, work)).unwrap();
        assert_eq!(last.0, last.1);
        for row in &audit.rows {
            for (protocol, found) in [
                (Protocol::Elbo, row.fitted.bound()),
                (Protocol::Iwae, row.iwae.clone()),
                (Protocol::Prefix, row.prefix.clone()),
                (Protocol::Fixed, row.fixed.reported()),
            ] {
                let mut config = config.clone();
                config.fast.steps = row.steps;
                let evaluator = Evaluator::new(&config, protocol, row.steps, 2, &params, &mut store).unwrap();
                let scored = score(&evaluator, &config, &mut store, &source, Some(3), |_| ()).unwrap();
                for (found, expected) in found.iter().zip(&scored.scores) {
                    assert!((found - expected.nats).abs() < 1e-9 * expected.nats, "{protocol:?}, T = {}", row.steps);
                }
                assert_eq!((found.len(), &scored.exact), (3, &audit.exact));
            }
            let kl = row.fitted.kl.iter().sum::<f64>() / 3.0;
            assert_eq!(row.fitted.kl_by_latent.len(), 4);
            assert!((row.fitted.kl_by_latent.iter().sum::<f64>() - kl).abs() < 1e-9 * kl);
        }
    }
}
