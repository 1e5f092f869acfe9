//! The audit of a model's numbers: the number of every protocol at T fast steps, whether it is a bound, how much fitted
//! noise lowers it, and which latents carry the KL.
//!
//! The protocol `fixed` scores a posterior at the noise that it was fitted to. It adds the KL but uses only one known
//! point of z; the cost at other points may be higher. So the audit also scores these posteriors at fresh noise. The
//! difference of the two NLLs is the part that `fixed` leaves out.
//!
//! The way of inference is another question: the same decoder is also scored, by a bound, with posteriors fitted as the
//! reference fits them.

mod layout;
pub mod masked;
mod reference;
mod words;

pub use layout::{Audit, latents, tables};
pub use words::{paragraphs, verdict};

use engine::Result;
use ltm::config::{Config, Noise, Work};
use ltm::data::Source;
use ltm::evaluate::{Draws, Evaluator, Excess, Mean, Protocol, SequenceScore, Total};
use ltm::run::Loaded;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Options of an audit.
#[derive(Clone, Debug)]
pub struct Options {
    /// The numbers T of fast steps, at least 1.
    pub steps: Vec<usize>,
    /// Draws S, at least 2, because a single draw has no error estimate.
    pub draws: usize,
    /// Number of sequences, from the start of the source.
    pub sequences: u64,
}

/// The cost of the sequences by one protocol, in the order of the source.
#[derive(Clone, Debug, Default)]
pub struct Scores(pub Vec<SequenceScore>);

impl Scores {
    fn each(&self, of: impl Fn(&SequenceScore) -> f64) -> Vec<f64> {
        self.0.iter().map(of).collect()
    }

    /// Nats per sequence.
    pub fn nats(&self) -> Mean {
        Mean::of(&self.each(|score| score.nats))
    }

    fn nll(&self) -> Mean {
        Mean::of(&self.each(|score| score.nll))
    }

    fn kl(&self) -> Mean {
        Mean::of(&self.each(|score| score.kl))
    }

    fn perplexity(&self) -> f64 {
        Total::of(&self.0).perplexity()
    }

    /// Nats per sequence minus those of `other`, paired.
    pub fn less(&self, other: &Self) -> Mean {
        Mean::of_differences(&self.each(|score| score.nats), &other.each(|score| score.nats))
    }

    /// Nats per sequence above the exact cost of the same sequences, if that is known.
    pub fn above(&self) -> Option<Mean> {
        Excess::of(&self.0).map(|excess| excess.above)
    }
}

/// How posteriors are fitted.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// As the run's own settings say, for this protocol.
    Own(Protocol),
    /// As the reference fits them.
    Reference,
}

/// All protocols at one T.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Fast steps T.
    pub steps: usize,
    /// Fitted with the run's own kind of noise, scored at fresh draws: a bound.
    pub elbo: Scores,
    /// −log of the mean importance weight of the same draws: a bound.
    pub iwae: Scores,
    /// The second half of each sequence under a posterior from the first.
    pub prefix: Scores,
    /// Fitted to one fixed noise and scored at the same noise: not a bound.
    pub fixed: Scores,
    /// The same posteriors at fresh draws: a bound.
    pub fixed_at_fresh_noise: Scores,
    /// Fitted as the reference fits posteriors, scored at the draws of `elbo`: a bound.
    pub reference: Scores,
    /// Mean KL over sequences of every latent vector in `elbo`, the K of the first layer first.
    pub kl_by_latent: Vec<f64>,
}

impl Row {
    /// How much more the sequences cost at fresh noise than `fixed` reports.
    pub fn gap(&self) -> Mean {
        self.fixed_at_fresh_noise.less(&self.fixed)
    }

    /// How much more the sequences cost by the reference's way of inference than by the run's own.
    pub fn reference_minus_own(&self) -> Mean {
        self.reference.less(&self.elbo)
    }

    fn add(&mut self, fitted: Way, of_run: bool, draws: &Draws) -> Result<()> {
        match fitted {
            Way::Reference => self.reference.0.push(draws.score(Protocol::Elbo)?),
            Way::Own(Protocol::Prefix) => self.prefix.0.push(draws.score(Protocol::Prefix)?),
            Way::Own(Protocol::Fixed) => {
                self.fixed.0.push(draws.score(Protocol::Fixed)?);
                self.fixed_at_fresh_noise.0.push(draws.score(Protocol::Elbo)?);
            }
            Way::Own(_) => {}
        }
        if of_run {
            self.elbo.0.push(draws.score(Protocol::Elbo)?);
            self.iwae.0.push(draws.score(Protocol::Iwae)?);
            self.kl_by_latent.resize(draws.kl_by_latent.len(), 0.0);
            self.kl_by_latent.iter_mut().zip(&draws.kl_by_latent).for_each(|(sum, kl)| *sum += kl);
        }
        Ok(())
    }
}

/// Measures the first sequences of `source`, one row per T; after every batch it calls `progress` with the number of
/// fast steps done and the total.
///
/// # Errors
/// A model that infers no latents, settings that contradict each other, too little memory, sequences that cannot be read, numbers
/// that are not finite.
pub fn audit(
    model: &mut Loaded,
    source: &Arc<dyn Source>,
    options: &Options,
    mut progress: impl FnMut(u64, u64),
) -> Result<Vec<Row>> {
    let Loaded { config, params, store, .. } = model;
    let mut config = config.clone();
    config.fast.steps = options.steps.iter().copied().max().unwrap_or(1);
    config.resolved()?;
    // For a run with fixed noise both protocols fit the same posteriors.
    let of_run = if config.fast.noise == Noise::Fixed { Protocol::Fixed } else { Protocol::Elbo };
    let mut evaluators = Vec::new();
    for protocol in BTreeSet::from([of_run, Protocol::Prefix, Protocol::Fixed]) {
        let mut evaluator = Evaluator::new(&config, protocol, config.fast.steps, options.draws, params, store)?;
        evaluator.fresh = true;
        evaluators.push((Way::Own(protocol), evaluator));
    }
    let reference = Config { fast: reference::way(config.fast.steps), ..config.clone() };
    let (steps, draws) = (config.fast.steps, options.draws);
    evaluators.push((Way::Reference, Evaluator::new(&reference, Protocol::Elbo, steps, draws, params, store)?));
    config.check_room(store, Work::Evaluation)?;
    let count = source.samples().map_or(options.sequences, |samples| samples.min(options.sequences));
    let batches = count.div_ceil(config.train.rows() as u64) * evaluators.len() as u64;
    let work = options.steps.iter().map(|&t| t as u64).sum::<u64>() * batches;
    let mut done = 0;
    let mut rows = Vec::new();
    for &steps in &options.steps {
        let mut row = Row { steps, ..Row::default() };
        for (way, evaluator) in &mut evaluators {
            evaluator.take_steps(steps);
            evaluator.draws(store, source, 0..count, |sequences, _| {
                done += steps as u64;
                progress(done, work);
                sequences.iter().try_for_each(|draws| row.add(*way, *way == Way::Own(of_run), draws))
            })?;
        }
        let sequences = row.elbo.0.len() as f64;
        row.kl_by_latent.iter_mut().for_each(|kl| *kl /= sequences);
        rows.push(row);
    }
    Ok(rows)
}

/// The row whose T is nearest to that of training.
pub fn as_trained<'a>(rows: &'a [Row], config: &Config) -> &'a Row {
    rows.iter().min_by_key(|row| row.steps.abs_diff(config.fast.steps)).expect("an audit has rows")
}
