use crate::config::Config;
use crate::data::{Batch, Order, Sampler, Source};
use crate::evaluate::{Evaluator, Mean, Protocol, SequenceScore, Total};
use autograd::Store;
use engine::{Error, Result};
use std::sync::Arc;

/// What sequences cost a model and, where the process that made them is known, what they cost at least.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    /// By sequence, in the source's order.
    pub scores: Vec<SequenceScore>,
    /// −log p of each under the process that made them, in nats; empty if it is not known.
    pub exact: Vec<f64>,
}

/// The same sequences' cost under a model and under the process that made them, in nats per sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Excess {
    /// Mean exact −log p.
    pub exact: f64,
    /// Mean of the model's cost less the exact one.
    pub mean: f64,
    /// Standard error of that mean over sequences.
    pub error: f64,
}

impl Scored {
    /// Totals over all sequences.
    pub fn total(&self) -> Total {
        Total::of(&self.scores)
    }

    /// The comparison with the process that made the sequences, pair by pair; `None` if it is not known.
    pub fn excess(&self) -> Option<Excess> {
        if self.exact.is_empty() || self.exact.len() != self.scores.len() {
            return None;
        }
        let nats: Vec<f64> = self.scores.iter().map(|score| score.nats).collect();
        let Mean { mean, error } = Mean::of_differences(&nats, &self.exact);
        Some(Excess { exact: Mean::of(&self.exact).mean, mean, error })
    }
}

impl Excess {
    /// Whether a number that is labelled a bound behaves as one: not below the truth by more than its standard error.
    pub fn holds(&self) -> bool {
        !Mean { mean: self.mean, error: self.error }.is_below_zero()
    }
}

/// Scores the first `limit` sequences of `source`; calls `progress` with the number done after every batch.
///
/// # Errors
/// Sequences that cannot be read or do not fit the model, a source without end if there is no limit, and numbers that are
/// not finite.
pub fn score(
    evaluator: &Evaluator,
    config: &Config,
    store: &mut Store,
    source: &Arc<dyn Source>,
    limit: Option<u64>,
    progress: impl FnMut(u64),
) -> Result<Scored> {
    let protocols = [evaluator.protocol()];
    score_by(&protocols, evaluator, config, store, source, limit, progress).map(|mut scored| scored.remove(0))
}

/// The same by several protocols, from one fit: all must [share the draws](Protocol::shares_draws) of the evaluator's.
///
/// # Errors
/// As [`score`].
pub fn score_by(
    protocols: &[Protocol],
    evaluator: &Evaluator,
    config: &Config,
    store: &mut Store,
    source: &Arc<dyn Source>,
    limit: Option<u64>,
    mut progress: impl FnMut(u64),
) -> Result<Vec<Scored>> {
    let count = match (source.samples(), limit) {
        (Some(samples), limit) => samples.min(limit.unwrap_or(samples)),
        (None, Some(limit)) => limit,
        (None, None) => return Err(Error::usage("a source without end needs a limit")),
    };
    let mut sampler = Sampler::new(source.clone(), Order::Once)?;
    let (rows, seq) = (config.train.batch, config.model.seq);
    let mut batch = Batch::new(rows, seq);
    let mut scored = vec![Scored::default(); protocols.len()];
    for first in (0..count).step_by(rows) {
        sampler.fill(first, &mut batch)?;
        for row in (0..rows).filter(|&row| first + row as u64 >= count) {
            batch.targets[row * seq..(row + 1) * seq].fill(-1);
            batch.samples[row].scored = 0;
        }
        for (scored, scores) in scored.iter_mut().zip(evaluator.batch_by(protocols, config, store, &batch)?) {
            scored.scores.extend(scores);
            scored.exact.extend(batch.samples.iter().filter(|s| s.scored > 0).filter_map(|s| s.nats));
        }
        progress((first + rows as u64).min(count));
    }
    Ok(scored)
}
