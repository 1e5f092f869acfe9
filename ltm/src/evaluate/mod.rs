//! Computes the cost of a text under a model, and defines which numbers are bounds.
//!
//! Posterior inference sees the text that it is scored on. So a number is a bound on −log p(x) only if it includes the
//! KL, the cost of what the posterior learned from the text, and if its noise is not the noise that the posterior was
//! fitted to.

mod masks;
mod mixture;
mod protocol;
mod shared;
mod total;

pub use mixture::{Block, EARLY, Mixture, Prediction, blocks, key};
pub use protocol::Protocol;
pub use total::{Excess, Mean, SequenceScore, Total};
pub(crate) use total::{log_mean, mean_and_variance};

use crate::config::{Chunking, Config, FastConfig, ModelConfig, ModelKind, Noise};
use crate::data::{Batch, SampleInfo, Source};
use crate::diffusion::Lengths;
use crate::learn::{Fast, FastOptions, Inputs, Score};
use crate::model::Params;
use autograd::Store;
use engine::{Alone, Collective, Error, Result};
use masks::Judge;
use std::ops::Range;
use std::sync::Arc;

/// One sequence under draws from its fitted posterior, or under a model that infers no latents. In nats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draws {
    /// The sequence's index.
    pub id: u32,
    /// Targets scored.
    pub tokens: usize,
    /// Bytes of text that they stand for.
    pub bytes: f64,
    /// −log p(x) of all targets under the text's true source, if known; given what the model is told about the text.
    pub exact: Option<f64>,
    /// −log p under the true source of what the model is told about the text: the facts of an oracle's story, else 0.
    pub told: f64,
    /// −log p(x|z) for every draw z at fresh noise; one number if the model infers no latents, none by protocol `fixed`. Of masked
    /// diffusion: the estimate by every replicate of the draws, or −log p in every order by protocol `orders`.
    pub nll: Vec<f64>,
    /// −log p(token|z, the tokens before it) of every target scored, the mean over the draws; by protocol `prefix`
    /// −log p(token|the tokens before it), of the mixture of the draws. Empty for masked diffusion.
    pub token_nll: Vec<f64>,
    /// log q(z|x) − log p(z) of every draw; empty if the model infers no latents.
    pub log_ratio: Vec<f64>,
    /// −log p(x|z) at the noise that the posterior was fitted to, only for protocol `fixed`.
    pub own_nll: Option<f64>,
    /// KL of the posterior to the prior. Of masked diffusion: the cost of the text's length.
    pub kl: f64,
    /// The mean log Z of masked tokens, where the cost contains it: 0 if the scores of SEDD sum to one.
    pub log_z: Option<f64>,
    /// The KL of every latent vector, the first layer's first.
    pub kl_by_latent: Vec<f64>,
}

impl Draws {
    /// The cost of the sequence by a protocol.
    ///
    /// # Errors
    /// If the cost is not finite.
    ///
    /// # Panics
    /// If the draws were made for a protocol that does not [share](Protocol::shares_draws) them.
    pub fn score(&self, protocol: Protocol) -> Result<SequenceScore> {
        let bound = || {
            let (nll, noise) = mean_and_variance(&self.nll);
            (nll + self.kl, nll, noise)
        };
        let (nats, nll, noise) = match protocol {
            Protocol::Elbo | Protocol::Bound | Protocol::Normalised | Protocol::Paper => bound(),
            Protocol::Iwae => {
                let costs: Vec<f64> = self.nll.iter().zip(&self.log_ratio).map(|(nll, ratio)| nll + ratio).collect();
                let (nats, noise) = log_mean(&costs);
                (nats, mean_and_variance(&self.nll).0, noise)
            }
            Protocol::Orders => {
                let (nll, noise) = log_mean(&self.nll);
                (nll + self.kl, nll, noise)
            }
            // The noise is a single draw, which has no error estimate.
            Protocol::Fixed => {
                let nll = self.own_nll.expect("the posterior was scored at its own noise");
                (nll + self.kl, nll, f64::NAN)
            }
            Protocol::Nll => (self.nll[0], self.nll[0], 0.0),
            // The draws are of masks.
            Protocol::Prefix if self.token_nll.is_empty() => bound(),
            Protocol::Prefix => {
                let nats = self.token_nll.iter().sum();
                (nats, nats, if self.log_ratio.is_empty() { 0.0 } else { log_mean(&self.nll).1 })
            }
        };
        if !nats.is_finite() {
            return Err(Error::new(format!("the score of sample {} is not finite", self.id)));
        }
        let kl = if protocol == Protocol::Elbo || protocol == Protocol::Fixed { self.kl } else { nats - nll };
        // The source's probability is that of whole sequences.
        let exact = self.exact.filter(|_| protocol != Protocol::Prefix);
        Ok(SequenceScore { nats, nll, kl, noise, tokens: self.tokens, bytes: self.bytes, exact, told: self.told })
    }
}

/// Scores batches of sequences by S draws, as one protocol wants it: fits posteriors by T fast steps, if the model infers latents.
#[derive(Debug)]
pub struct Evaluator {
    protocol: Protocol,
    draws: usize,
    /// Whether the posterior is scored at fresh noise. Protocol `fixed` scores it at the noise that it was fitted to;
    /// if this is also set, its draws also have a cost by `elbo` and `iwae`.
    pub fresh: bool,
    /// The processes that share the sequences, one unless set otherwise.
    pub ranks: Arc<dyn Collective>,
    model: ModelConfig,
    rate: f64,
    batch: usize,
    way: Way,
}

/// How the tokens are predicted.
#[derive(Debug)]
enum Way {
    /// One after the other.
    Next(Box<Next>),
    /// The second half of each text as one block.
    Half(Box<Mixture>),
    /// Behind masks.
    Masked(Box<Judge>),
}

#[derive(Debug)]
struct Next {
    inputs: Inputs,
    /// Without inference there is nothing to fit.
    fast: Option<Fast>,
    score: Score,
}

impl Evaluator {
    /// Plans an evaluation with `steps` fast steps and `draws` draws on batches of `config.train.batch` sequences.
    ///
    /// # Errors
    /// If the configuration contradicts itself, there is no draw, or the protocol is not one for such a model.
    pub fn new(
        config: &Config,
        protocol: Protocol,
        steps: usize,
        draws: usize,
        params: &Params,
        store: &mut Store,
    ) -> Result<Self> {
        if draws == 0 {
            return Err(Error::usage("an evaluation needs at least one draw".to_string()));
        }
        let (model, batch) = (&config.model, config.train.rows());
        protocol.check(model)?;
        let way = match model.kind.method() {
            Some(method) => Way::Masked(Judge::new(config, method, draws, params, store)?.into()),
            None if protocol == Protocol::Prefix => {
                let mut config = config.clone();
                config.fast.steps = steps;
                let size = [batch, (model.seq / 2).max(1), model.seq];
                Way::Half(Mixture::new(&config, size, draws, params, store)?.into())
            }
            None => Self::next(config, protocol, steps, params, store)?,
        };
        let fresh = protocol != Protocol::Fixed;
        let (model, rate) = (model.clone(), config.fast.rate_end);
        Ok(Self { protocol, draws, fresh, ranks: Arc::new(Alone), model, rate, batch, way })
    }

    /// Plans for a model that predicts the next token.
    fn next(config: &Config, protocol: Protocol, steps: usize, params: &Params, store: &mut Store) -> Result<Way> {
        let (model, batch) = (&config.model, config.train.rows());
        let inputs = Inputs::new(model, batch, model.seq, params.dtype, store);
        let noise = if protocol == Protocol::Fixed { Noise::Fixed } else { config.fast.noise };
        let fast_config = FastConfig { steps, noise, ..config.fast.clone() };
        let options = FastOptions { seed: config.train.seed, ..FastOptions::default() };
        let fast = || Fast::new(model, &fast_config, params, &inputs, store, &options);
        let fast = model.kind.infers().then(fast).transpose()?;
        let latents = fast.as_ref().map(|fast| &fast.latents);
        let score = Score::new(model, params, &inputs, latents, config.train.seed, store)?;
        Ok(Way::Next(Next { inputs, fast, score }.into()))
    }

    /// Says how the text is cut. Documents pay for their lengths, by how often training documents have them; the length of a window is
    /// fixed beforehand. Only masked diffusion needs this: other models predict where a document ends.
    pub fn cut(&mut self, chunking: Chunking, lengths: Option<&Lengths>) {
        if let Way::Masked(judge) = &mut self.way {
            judge.documents = chunking == Chunking::Documents;
            judge.lengths = lengths.cloned();
        }
    }

    fn fast(&self) -> Option<&Fast> {
        match &self.way {
            Way::Next(next) => next.fast.as_ref(),
            Way::Half(mixture) => mixture.fast(),
            Way::Masked(_) => None,
        }
    }

    /// Sets another number of fast steps.
    ///
    /// # Panics
    /// If they are more than it was planned for.
    pub fn take_steps(&mut self, steps: usize) {
        match &mut self.way {
            Way::Next(next) => next.fast.iter_mut().for_each(|fast| fast.take_steps(steps)),
            Way::Half(mixture) => mixture.take_steps(steps),
            Way::Masked(_) => {}
        }
    }

    /// Draws for the sequences of one batch that have a target, in order.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    ///
    /// # Panics
    /// If `prefix` meets a sequence whose ignored targets are not its last.
    pub fn batch(&self, store: &mut Store, batch: &Batch) -> Result<Vec<Draws>> {
        let Next { inputs, fast, score } = match &self.way {
            Way::Next(next) => &**next,
            Way::Half(mixture) => return self.halves(mixture, store, batch),
            Way::Masked(judge) => return judge.batch(self.protocol, store, batch),
        };
        inputs.load(store, &self.model, batch)?;
        if let Some(fast) = fast {
            fast.fit(store, self.rate, 0, |_, _| ());
        }
        let mut sequences = self.fitted(store, batch)?;
        score.begin(store);
        // The noise that all fast steps shared also made the final z.
        let fixed = fast.as_ref().filter(|_| self.protocol == Protocol::Fixed);
        let own = fixed.map(|fast| score.at(store, fast.latents.z)).transpose()?;
        let count = match fast {
            None => 1,
            Some(_) if self.fresh => self.draws as u32,
            Some(_) => 0,
        };
        for s in 0..count {
            let draw = score.draw(store, s)?;
            for (b, sequence) in &mut sequences {
                sequence.nll.push(draw.nll[*b]);
                sequence.log_ratio.extend(draw.log_ratio.get(*b));
                let targets = batch.targets.iter().zip(&draw.token_nll).skip(*b * inputs.sequence);
                let scored = targets.take(inputs.sequence).filter(|(target, _)| **target >= 0);
                let token_nll = &mut sequence.token_nll;
                token_nll.resize(sequence.tokens, 0.0);
                token_nll.iter_mut().zip(scored).for_each(|(sum, (_, nats))| *sum += nats / f64::from(count));
            }
        }
        for (b, sequence) in &mut sequences {
            sequence.own_nll = own.as_ref().map(|own| own[*b]);
        }
        Ok(sequences.into_iter().map(|(_, sequence)| sequence).collect())
    }

    /// What is known of the sequences that have a target, before draws, and their rows.
    fn fitted(&self, store: &Store, batch: &Batch) -> Result<Vec<(usize, Draws)>> {
        let latents = self.fast().map(|fast| &fast.latents);
        let by_latent = latents.map(|latents| latents.kl_by_latent(store)).transpose()?.unwrap_or_default();
        let kl = latents.map(|latents| latents.posterior_kl(store)).transpose()?.unwrap_or_default();
        let told = |sample: &SampleInfo| match sample.facts {
            Some(facts) if self.model.kind == ModelKind::Oracle => facts.nats,
            _ => 0.0,
        };
        let samples = batch.samples.iter().enumerate().filter(|(_, sample)| sample.scored > 0);
        let sequence = |(b, sample): (usize, &SampleInfo)| {
            let draws = Draws {
                id: sample.id,
                tokens: targets(batch, b).filter(|&&target| target >= 0).count(),
                bytes: sample.bytes as f64,
                exact: sample.nats.map(|nats| nats - told(sample)),
                told: told(sample),
                kl: kl.get(b).copied().unwrap_or(0.0),
                kl_by_latent: by_latent.get(b).cloned().unwrap_or_default(),
                ..Draws::default()
            };
            (b, draws)
        };
        Ok(samples.map(sequence).collect())
    }

    /// [`batch`](Self::batch) by protocol `prefix`. A text of one token has an empty first half: its latents come from the prior.
    fn halves(&self, mixture: &Mixture, store: &mut Store, batch: &Batch) -> Result<Vec<Draws>> {
        let n = self.model.seq;
        let text = |b: usize| -> Vec<u16> {
            let scored = targets(batch, b).take_while(|&&target| target >= 0);
            batch.tokens[b * n..].iter().take(1).chain(scored).map(|&token| token as u16).collect()
        };
        let texts: Vec<Vec<u16>> = (0..batch.samples.len()).map(text).collect();
        // An empty row predicts a token that nobody asks for.
        let block = |text| Block { text, places: half(text)..text.len().max(2) };
        let blocks: Vec<Block<'_>> = texts.iter().map(|text| block(&text[..])).collect();
        mixture.fit(store, &blocks, |block| block.places.start)?;
        let mut sequences = self.fitted(store, batch)?;
        for (b, sequence) in &mut sequences {
            assert_eq!(sequence.tokens, texts[*b].len() - 1, "targets that count come first");
            sequence.tokens = blocks[*b].places.len();
            sequence.bytes = batch.samples[*b].later_bytes as f64;
        }
        if self.fresh {
            let mut nll = vec![Vec::new(); texts.len()];
            let mut token_nll = vec![Vec::new(); texts.len()];
            let log_ratio = mixture.read(store, &blocks, |b, place, seen| {
                let Some(&token) = texts[b].get(place) else { return };
                nll[b].resize(seen.draws(), 0.0);
                nll[b].iter_mut().zip(seen.by_draw(token)).for_each(|(sum, log_p)| *sum -= log_p);
                token_nll[b].push(-seen.log_p(token));
            })?;
            for (b, sequence) in &mut sequences {
                (sequence.nll, sequence.token_nll) = (std::mem::take(&mut nll[*b]), std::mem::take(&mut token_nll[*b]));
                sequence.log_ratio = log_ratio.iter().map(|draw| draw[*b]).collect();
            }
        }
        Ok(sequences.into_iter().map(|(_, sequence)| sequence).collect())
    }

    /// The posterior means μ of the latest batch, `L·K·d` numbers for each of its rows; none if the model infers no latents.
    ///
    /// # Errors
    /// Those of the device.
    pub fn means(&self, store: &Store) -> Result<Vec<Vec<f64>>> {
        let Some(fast) = self.fast() else { return Ok(vec![Vec::new(); self.batch]) };
        let means = store.get(fast.latents.mu).read_f64()?;
        Ok(means.chunks(means.len() / self.batch).map(<[f64]>::to_vec).collect())
    }

    /// Draws for some sequences of `source`; hands them to `each`, some batches at a time, with the number of the next one. Each of
    /// several processes computes one batch at a time, and gets the draws of all.
    ///
    /// # Errors
    /// Sequences that do not fit the model, those of `each`, and of the other processes.
    pub fn draws(
        &self,
        store: &mut Store,
        source: &Arc<dyn Source>,
        sequences: Range<u64>,
        mut each: impl FnMut(Vec<Draws>, u64) -> Result<()>,
    ) -> Result<()> {
        let (rows, ranks) = (self.batch as u64, &*self.ranks);
        let (before, all) = (ranks.rank() as u64 * rows, ranks.size() as u64 * rows);
        let mut batch = Batch::new(self.batch, self.model.seq);
        for first in sequences.clone().step_by(all as usize) {
            let mut own = || {
                let own = first + before..sequences.end;
                if own.is_empty() {
                    return Ok(Vec::new());
                }
                batch.fill(&**source, (own.start..).map(|index| own.contains(&index).then_some(index)))?;
                self.batch(store, &batch)
            };
            each(shared::gathered(ranks, own())?, (first + all).min(sequences.end))?;
        }
        Ok(())
    }

    /// The cost of the first `limit` sequences of `source`; calls `progress` with the number of sequences done.
    ///
    /// # Errors
    /// As [`draws`](Self::draws), a source without end if there is no limit, and a score that is not finite.
    pub fn score(
        &self,
        store: &mut Store,
        source: &Arc<dyn Source>,
        limit: Option<u64>,
        mut progress: impl FnMut(u64),
    ) -> Result<Vec<SequenceScore>> {
        let Some(count) = source.samples().into_iter().chain(limit).min() else {
            return Err(Error::usage("an endless source needs a limit"));
        };
        let mut scores = Vec::new();
        self.draws(store, source, 0..count, |sequences, done| {
            progress(done);
            sequences.iter().try_for_each(|draws| draws.score(self.protocol).map(|score| scores.push(score)))
        })?;
        Ok(scores)
    }
}

/// The first place of the second half of a text, whose first token is not predicted.
const fn half(text: &[u16]) -> usize {
    1 + text.len().saturating_sub(1) / 2
}

/// The targets of row `b`.
fn targets(batch: &Batch, b: usize) -> impl Iterator<Item = &i32> {
    let n = batch.targets.len() / batch.samples.len();
    batch.targets[b * n..(b + 1) * n].iter()
}
