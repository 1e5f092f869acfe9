//! What may be called a perplexity. Posterior inference sees the text that it is scored on, so a number is a bound on
//! −log p(x) only if it pays for what the posterior knows: the KL, at noise the posterior was not fitted to.

mod mean;

pub use mean::Mean;
pub use mean::{log_mean, mean_and_noise};

use crate::config::{Config, FastConfig, ModelKind, Noise};
use crate::data::Batch;
use crate::learn::{Fast, FastOptions, Inputs, Score, Scores};
use crate::model::Params;
use autograd::Store;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// How a text is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Fit, then S fresh draws: mean NLL plus the KL. An upper bound on −log p(x) in expectation.
    Elbo,
    /// −log of the mean importance weight over S draws. A tighter upper bound.
    Iwae,
    /// −log p(x) of a model without latents, to the last digit. Not a bound.
    Nll,
    /// Fit on the first half only; −log of the second half's mean likelihood over S draws. A code length that an
    /// autoregressive model's number can be compared with.
    Prefix,
    /// The public reference's own number: the NELBO at the very noise that the posterior was fitted to. Not a bound.
    Fixed,
}

impl Protocol {
    /// The protocols that there are for a kind of model, in the order of tables; the first is what it is validated by. A model
    /// without latents has no posterior: it knows −log p of a text, and of its second half, exactly.
    pub const fn of(kind: ModelKind) -> &'static [Self] {
        match kind {
            ModelKind::Ltm => &[Self::Elbo, Self::Iwae, Self::Prefix, Self::Fixed],
            ModelKind::Ar | ModelKind::Gpt2 => &[Self::Nll, Self::Prefix],
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Elbo => "elbo",
            Self::Iwae => "iwae",
            Self::Nll => "nll",
            Self::Prefix => "prefix",
            Self::Fixed => "fixed",
        }
    }

    /// What the number is.
    pub fn status(self) -> &'static str {
        match self {
            Self::Elbo => "upper bound",
            Self::Iwae => "tighter upper bound",
            Self::Nll => "exact",
            Self::Prefix => "second half given the first",
            Self::Fixed => "not a bound",
        }
    }

    /// Whether both fit a posterior in the same way and score it by the same draws, so that one pass has the numbers of both.
    pub fn shares_draws(self, other: Self) -> bool {
        let bound = |protocol| matches!(protocol, Self::Elbo | Self::Iwae);
        self == other || (bound(self) && bound(other))
    }

    /// The protocol called `name` for a kind of model.
    ///
    /// # Errors
    /// If there is none.
    pub fn by_name(name: &str, kind: ModelKind) -> Result<Self> {
        Self::of(kind).iter().copied().find(|p| p.name() == name).ok_or_else(|| {
            let names = Self::of(kind).iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
            Error::usage(format!("there is no protocol {name:?} for model.kind = {kind}: choose one of {names}"))
        })
    }
}

/// What one sequence costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceScore {
    /// The protocol's number, in nats.
    pub nats: f64,
    /// Its part that is −log p(x|z), in nats.
    pub nll: f64,
    /// Its part that is the KL (for `iwae`: the rest), in nats.
    pub kl: f64,
    /// Variance of `nats` that is due to the finite number of draws.
    pub noise: f64,
    /// Targets scored.
    pub tokens: usize,
    /// Bytes of text that they stand for.
    pub bytes: f64,
}

/// Fits and scores batches by one protocol.
#[derive(Debug)]
pub struct Evaluator {
    protocol: Protocol,
    draws: usize,
    rate: f64,
    inputs: Inputs,
    /// What the posterior is fitted to: the inputs themselves, or such as have room for the first halves.
    seen: Inputs,
    /// Without latents there is nothing to fit.
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
        let kind = config.model.kind;
        Protocol::by_name(protocol.name(), kind)?;
        let inputs = Inputs::new(config.train.batch, config.model.seq, params.dtype(), store);
        let seen = match protocol {
            Protocol::Prefix if kind.has_latents() => {
                Inputs::new(config.train.batch, (config.model.seq / 2).max(1), params.dtype(), store)
            }
            _ => inputs,
        };
        let noise = if protocol == Protocol::Fixed { Noise::Fixed } else { config.fast.noise };
        let fast_config = FastConfig { steps, noise, ..config.fast.clone() };
        let options = FastOptions { seed: config.train.seed, ..FastOptions::default() };
        let fast = match kind {
            ModelKind::Ltm => Some(Fast::new(&config.model, &fast_config, params, &seen, store, &options)?),
            ModelKind::Ar | ModelKind::Gpt2 => None,
        };
        let latents = fast.as_ref().map(|fast| &fast.latents);
        let score = Score::new(&config.model, params, &inputs, latents, config.train.seed, store)?;
        Ok(Self { protocol, draws, rate: config.fast.rate_end, inputs, seen, fast, score })
    }

    /// What it was planned for.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Scores the sequences of one batch that have a target, in order.
    ///
    /// # Errors
    /// If the batch does not fit the model, targets to be ignored come before such as count (`prefix`), or a number is not
    /// finite.
    pub fn batch(&self, config: &Config, store: &mut Store, batch: &Batch) -> Result<Vec<SequenceScore>> {
        self.batch_by(&[self.protocol], config, store, batch).map(|mut scores| scores.remove(0))
    }

    /// The same by several protocols, from one fit: all must [share its draws](Protocol::shares_draws).
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    ///
    /// # Panics
    /// If a protocol needs another fit.
    pub fn batch_by(
        &self,
        protocols: &[Protocol],
        config: &Config,
        store: &mut Store,
        batch: &Batch,
    ) -> Result<Vec<Vec<SequenceScore>>> {
        assert!(protocols.iter().all(|protocol| protocol.shares_draws(self.protocol)), "{protocols:?}");
        let scored = if self.protocol == Protocol::Prefix {
            let [prefix, rest] = halves(batch);
            // A sequence of one token has no first half: its posterior has seen nothing.
            self.seen.place(store, &config.model, &front(&prefix, self.seen.sequence)?)?;
            rest
        } else {
            self.seen.load(store, &config.model, batch)?;
            batch.clone()
        };
        let posterior_kl = self.fast.as_ref().map_or_else(Vec::new, |fast| {
            fast.fit(store, self.rate, 0, |_, _| ());
            fast.latents.posterior_kl(store)
        });
        self.inputs.load(store, &config.model, &scored)?;
        self.score.begin(store);
        let draws: Vec<Scores> = match (&self.fast, self.protocol) {
            (None, _) => vec![self.score.exact(store)],
            // The noise that all fast steps shared also made the final z.
            (Some(fast), Protocol::Fixed) => vec![self.score.at(store, fast.latents.z)],
            _ => (0..self.draws as u32).map(|s| self.score.draw(store, s)).collect(),
        };
        let priced = |protocol| self.price(protocol, batch, &scored, &draws, &posterior_kl);
        protocols.iter().map(|&protocol| priced(protocol)).collect()
    }

    /// The scores of the sequences that have a target, `scored` as far as it counts, by a protocol.
    fn price(
        &self,
        protocol: Protocol,
        batch: &Batch,
        scored: &Batch,
        draws: &[Scores],
        posterior_kl: &[f64],
    ) -> Result<Vec<SequenceScore>> {
        let mut scores = Vec::with_capacity(batch.samples.len());
        for (b, sample) in batch.samples.iter().enumerate().filter(|(_, s)| s.scored > 0) {
            let nlls: Vec<f64> = draws.iter().map(|d| d.nll[b]).collect();
            let tokens = scored_in(scored, b);
            let share = tokens as f64 / f64::from(sample.scored);
            let mut score = match protocol {
                Protocol::Elbo | Protocol::Fixed => {
                    let (nll, noise) = mean_and_noise(&nlls);
                    SequenceScore { nats: nll + posterior_kl[b], nll, kl: posterior_kl[b], noise, ..Default::default() }
                }
                Protocol::Iwae => {
                    let costs: Vec<f64> = draws.iter().map(|d| d.nll[b] + d.log_ratio[b]).collect();
                    let (nats, noise) = log_mean(&costs);
                    let nll = mean_and_noise(&nlls).0;
                    SequenceScore { nats, nll, kl: nats - nll, noise, ..Default::default() }
                }
                Protocol::Nll => SequenceScore { nats: nlls[0], nll: nlls[0], ..Default::default() },
                Protocol::Prefix => {
                    // Without latents there is nothing to draw.
                    let (nats, noise) = if self.fast.is_some() { log_mean(&nlls) } else { (nlls[0], 0.0) };
                    SequenceScore { nats, nll: nats, kl: 0.0, noise, ..Default::default() }
                }
            };
            score.tokens = tokens;
            score.bytes = sample.bytes as f64 * share;
            if !score.nats.is_finite() {
                return Err(Error::new(format!("sample {} has a score that is not finite", sample.id)));
            }
            scores.push(score);
        }
        Ok(scores)
    }
}

/// A batch with the first half of each sequence's targets, and one with the second.
pub fn halves(batch: &Batch) -> [Batch; 2] {
    let n = batch.targets.len() / batch.samples.len();
    let (mut prefix, mut rest) = (batch.clone(), batch.clone());
    for b in 0..batch.samples.len() {
        let half = scored_in(batch, b) / 2;
        for (seen, i) in (b * n..(b + 1) * n).filter(|&i| batch.targets[i] >= 0).enumerate() {
            let unseen = if seen < half { &mut rest } else { &mut prefix };
            unseen.targets[i] = -1;
        }
    }
    [prefix, rest]
}

/// The first `n` places of each sequence of a batch that has no targets behind them.
fn front(batch: &Batch, n: usize) -> Result<Batch> {
    let whole = batch.targets.len() / batch.samples.len();
    if batch.targets.chunks(whole).any(|targets| targets[n..].iter().any(|&target| target >= 0)) {
        return Err(Error::new("a sequence's first half is beyond its middle: targets that count must come first"));
    }
    let cut = |of: &[i32]| of.chunks(whole).flat_map(|row| &row[..n]).copied().collect();
    Ok(Batch { tokens: cut(&batch.tokens), targets: cut(&batch.targets), samples: batch.samples.clone() })
}

/// Targets of row `b` that count.
fn scored_in(batch: &Batch, b: usize) -> usize {
    let n = batch.targets.len() / batch.samples.len();
    batch.targets[b * n..(b + 1) * n].iter().filter(|&&t| t >= 0).count()
}

/// Totals over a corpus.
///
/// ```
/// use ltm::evaluate::{SequenceScore, Total};
///
/// let score = |nats, tokens| SequenceScore { nats, tokens, bytes: 2.0 * tokens as f64, ..SequenceScore::default() };
/// let total = Total::of(&[score(30.0, 10), score(10.0, 30)]);
/// // Per token of all sequences together, not the mean of the sequences'.
/// assert_eq!((total.perplexity(), total.bits_per_byte()), (1f64.exp(), 0.5 / 2f64.ln()));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Total {
    /// Sequences.
    pub sequences: usize,
    /// Targets scored.
    pub tokens: usize,
    /// Bytes scored.
    pub bytes: f64,
    /// Σ nats.
    pub nats: f64,
    /// Σ NLL.
    pub nll: f64,
    /// Σ KL.
    pub kl: f64,
    /// Standard error of Σ nats over the choice of sequences, lengths and all; not a number for a single one.
    pub sequence_error: f64,
    /// Standard error of Σ nats over the draws; not a number for a single draw.
    pub draw_error: f64,
    /// Mean of exp(nats / tokens) over sequences: the public reference's average. A labelled extra.
    pub mean_perplexity: f64,
}

impl Total {
    /// Adds up.
    pub fn of(scores: &[SequenceScore]) -> Self {
        let sum = |f: fn(&SequenceScore) -> f64| scores.iter().map(f).sum::<f64>();
        let tokens: usize = scores.iter().map(|s| s.tokens).sum();
        let nats = sum(|s| s.nats);
        let n = scores.len() as f64;
        let spread: f64 = scores.iter().map(|s| (s.nats - nats / n).powi(2)).sum();
        let reference = |s: &SequenceScore| (s.nats / s.tokens.max(1) as f64).exp();
        Self {
            sequences: scores.len(),
            tokens,
            bytes: sum(|s| s.bytes),
            nats,
            nll: sum(|s| s.nll),
            kl: sum(|s| s.kl),
            sequence_error: if scores.len() > 1 { (spread * n / (n - 1.0)).sqrt() } else { f64::NAN },
            draw_error: sum(|s| s.noise).sqrt(),
            mean_perplexity: scores.iter().map(reference).sum::<f64>() / n,
        }
    }

    /// exp(Σ nats / Σ tokens).
    pub fn perplexity(&self) -> f64 {
        (self.nats / self.tokens as f64).exp()
    }

    /// Σ nats / (ln 2 · Σ bytes): does not depend on the tokenizer.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_halves_are_at_the_front() {
        let mut batch = Batch::new(2, 5);
        batch.tokens = (0..10).collect();
        batch.targets = vec![1, 2, 3, 4, 5, 6, 7, -1, -1, -1];
        let [prefix, rest] = halves(&batch);
        let seen = front(&prefix, 2).unwrap();
        assert_eq!((seen.tokens, seen.targets), (vec![0, 1, 5, 6], vec![1, 2, 6, -1]));
        assert_eq!(rest.targets, [-1, -1, 3, 4, 5, -1, 7, -1, -1, -1]);
        // A target to be ignored before such as count: half of them is beyond the middle.
        batch.targets[..3].fill(-1);
        assert!(front(&halves(&batch)[0], 2).unwrap_err().to_string().contains("must come first"));
    }

    #[test]
    fn totals_weigh_sequences_by_their_tokens() {
        let score = |nats: f64, tokens: usize| SequenceScore {
            nats,
            nll: nats,
            tokens,
            bytes: tokens as f64,
            ..Default::default()
        };
        let total = Total::of(&[score(10.0, 10), score(90.0, 30)]);
        assert!((total.perplexity() - (2.5f64).exp()).abs() < 1e-12);
        assert!((total.bits_per_byte() - 2.5 / std::f64::consts::LN_2).abs() < 1e-12);
        assert!((total.mean_perplexity - (1f64.exp() + 3f64.exp()) / 2.0).abs() < 1e-12);
        // Residuals −40 and +40 around a mean of 50.
        assert!((total.sequence_error - (3200.0f64 * 2.0).sqrt()).abs() < 1e-9);
    }
}
