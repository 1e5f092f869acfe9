//! Texts under a model, token by token.

use engine::{Error, Result};
use ltm::config::Work;
use ltm::data::{Batch, Source};
use ltm::evaluate::{Draws, Evaluator, Protocol, SequenceScore};
use ltm::run::Loaded;
use std::sync::Arc;

/// A sequence under its fitted posterior, or under a model that infers no latents.
pub struct Reading {
    /// Every scored token with −log p(token | z, the tokens before it) in nats, the mean over draws of z; by protocol `prefix`
    /// those of the second half alone.
    pub tokens: Vec<(u16, f64)>,
    /// The posterior's KL in nats; `None` without one.
    pub kl: Option<f64>,
    /// The cost of the tokens by the reader's protocol.
    pub score: SequenceScore,
    /// The cost by the tighter bound `iwae`, by the same draws; `None` if the protocol is no bound.
    pub iwae: Option<SequenceScore>,
    /// Whether it begins where a document begins.
    pub begins: bool,
    /// The posterior means μ, `L·K·d` numbers; none without a posterior.
    pub means: Vec<f64>,
}

/// Reads texts with a model.
pub struct Reader<'a> {
    /// The model.
    pub model: &'a mut Loaded,
    evaluator: Evaluator,
    protocol: Protocol,
}

impl<'a> Reader<'a> {
    /// Plans readings of whole sequences with T = `steps` fast steps and S = `draws` draws, at least one: by the bound `elbo`
    /// of a model with latents, by the exact cost of others.
    ///
    /// # Errors
    /// Settings that contradict each other, or too little memory.
    pub fn new(model: &'a mut Loaded, steps: usize, draws: usize) -> Result<Self> {
        let protocol = Protocol::of(model.config.model.kind)[0];
        Self::by(protocol, model, steps, draws)
    }

    /// The same by a protocol for such a model.
    ///
    /// # Errors
    /// As [`new`](Self::new), and a model of masked diffusion.
    pub fn by(protocol: Protocol, model: &'a mut Loaded, steps: usize, draws: usize) -> Result<Self> {
        let mut config = model.config.clone();
        let kind = config.model.kind;
        if kind.method().is_some() {
            return Err(Error::usage(format!("model.kind = {kind} fills in masks, so no token has a cost of its own")));
        }
        config.fast.steps = steps;
        config.resolved()?;
        let mut evaluator = Evaluator::new(&config, protocol, steps, draws, &model.params, &mut model.store)?;
        evaluator.cut(config.data.chunking, model.lengths.as_ref());
        config.check_room(&model.store, Work::Evaluation)?;
        Ok(Self { model, evaluator, protocol })
    }

    /// Reads the first `count` sequences of `source`; calls `progress` with the number done.
    ///
    /// # Errors
    /// Sequences that do not fit the model, and costs that are not finite.
    pub fn read(&mut self, source: &Arc<dyn Source>, count: u64, progress: impl FnMut(u64)) -> Result<Vec<Reading>> {
        let (infers, protocol) = (self.model.config.model.kind.infers(), self.protocol);
        let begin = i32::from(crate::text::tokenizer(self.model.config.data.tokenizer).begin());
        let mut readings = Vec::new();
        self.evaluator.fresh = true;
        self.each(source, count, progress, |[tokens, targets], draws, means| {
            let scored = targets.iter().filter(|target| **target >= 0).map(|&target| target as u16);
            let unscored = scored.clone().count() - draws.token_nll.len();
            readings.push(Reading {
                tokens: scored.skip(unscored).zip(draws.token_nll.iter().copied()).collect(),
                kl: infers.then_some(draws.kl),
                score: draws.score(protocol)?,
                iwae: protocol.shares_draws(Protocol::Iwae).then(|| draws.score(Protocol::Iwae)).transpose()?,
                begins: tokens[0] == begin,
                means,
            });
            Ok(())
        })?;
        Ok(readings)
    }

    /// The posterior means of the first `count` sequences of `source`, without their costs, as [`read`](Self::read).
    pub fn means(&mut self, source: &Arc<dyn Source>, count: u64, progress: impl FnMut(u64)) -> Result<Vec<Vec<f64>>> {
        let mut all = Vec::new();
        self.evaluator.fresh = false;
        self.each(source, count, progress, |_, _, means| {
            all.push(means);
            Ok(())
        })?;
        Ok(all)
    }

    /// Calls `each` with the tokens and targets of every sequence, its draws, and its posterior means.
    fn each(
        &mut self,
        source: &Arc<dyn Source>,
        count: u64,
        mut progress: impl FnMut(u64),
        mut each: impl FnMut([&[i32]; 2], Draws, Vec<f64>) -> Result<()>,
    ) -> Result<()> {
        let (rows, sequence) = (self.model.config.train.rows(), self.model.config.model.seq);
        let count = source.samples().map_or(count, |samples| samples.min(count));
        let mut batch = Batch::new(rows, sequence);
        for first in (0..count).step_by(rows) {
            batch.fill(&**source, (first..).map(|index| (index < count).then_some(index)))?;
            let draws = self.evaluator.batch(&mut self.model.store, &batch)?;
            let means = self.evaluator.means(&self.model.store)?;
            let texts = batch.tokens.chunks(sequence).zip(batch.targets.chunks(sequence)).zip(means);
            let there = texts.zip(&batch.samples).filter(|(_, sample)| sample.scored > 0);
            for ((((tokens, targets), means), _), draws) in there.zip(draws) {
                each([tokens, targets], draws, means)?;
            }
            progress((first + rows as u64).min(count));
        }
        Ok(())
    }
}
