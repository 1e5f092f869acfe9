use crate::json::null_is_nan;
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;

/// The cost of one sequence by a protocol, in nats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceScore {
    /// The protocol's number.
    pub nats: f64,
    /// The part of it that is −log p(x|z).
    pub nll: f64,
    /// The part of it that is the KL; for `iwae` the difference from the draws' mean NLL.
    pub kl: f64,
    /// Variance of `nats` due to the finite number of draws; NaN for a single draw.
    pub noise: f64,
    /// Targets scored.
    pub tokens: usize,
    /// Bytes of text that they stand for.
    pub bytes: f64,
    /// −log p(x) of the scored targets under the text's true source, if known; given what the model is told about the text.
    pub exact: Option<f64>,
    /// −log p under the true source of what the model is told about the text: the facts of an oracle's story, else 0. With it
    /// `nats` and `exact` are costs of the text alone, which compare with those of other models.
    pub told: f64,
}

/// Sums over the sequences of a corpus, with their errors. They can be written and read again to the last bit; memory does not
/// grow with the number of sequences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Total {
    /// Sequences.
    pub sequences: u64,
    /// Targets scored.
    pub tokens: u64,
    /// Bytes scored.
    pub bytes: f64,
    /// Σ nats.
    pub nats: f64,
    /// Σ NLL.
    pub nll: f64,
    /// Σ KL.
    pub kl: f64,
    /// Variance of Σ nats due to the finite number of draws; NaN for a single draw.
    #[serde(deserialize_with = "null_is_nan")]
    noise: f64,
    /// Σ exp(nats / tokens).
    #[serde(deserialize_with = "null_is_nan")]
    perplexities: f64,
    /// Σ nats², Σ nats · tokens, Σ tokens².
    squares: [f64; 3],
}

impl Total {
    /// The sums over `scores`.
    pub fn of(scores: &[SequenceScore]) -> Self {
        let mut total = Self::default();
        scores.iter().for_each(|score| total.add(score));
        total
    }

    /// Adds a sequence.
    pub fn add(&mut self, score: &SequenceScore) {
        let tokens = score.tokens as f64;
        self.sequences += 1;
        self.tokens += score.tokens as u64;
        self.bytes += score.bytes;
        self.nats += score.nats;
        self.nll += score.nll;
        self.kl += score.kl;
        self.noise += score.noise;
        self.perplexities += (score.nats / tokens.max(1.0)).exp();
        let products = [score.nats * score.nats, score.nats * tokens, tokens * tokens];
        self.squares.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
    }

    /// Nats per sequence, with the standard error over the choice of sequences, including their lengths.
    pub fn per_sequence(&self) -> Mean {
        let n = self.sequences as f64;
        Mean { mean: self.nats / n, error: self.error_of(self.squares[0] - self.nats * self.nats / n) / n }
    }

    /// Nats per token, with the standard error of a ratio of two sums over the choice of sequences: the spread of each
    /// sequence's nats minus its tokens times that ratio.
    pub fn per_token(&self) -> Mean {
        let rate = self.nats / self.tokens as f64;
        let [nats, both, tokens] = self.squares;
        let spread = nats - 2.0 * rate * both + rate * rate * tokens;
        Mean { mean: rate, error: self.error_of(spread) / self.tokens as f64 }
    }

    /// Standard error of a sum over sequences with the sum of squared deviations `spread`; NaN for a single sequence.
    fn error_of(&self, spread: f64) -> f64 {
        let n = self.sequences as f64;
        if self.sequences > 1 { (spread.max(0.0) * n / (n - 1.0)).sqrt() } else { f64::NAN }
    }

    /// Standard error of Σ nats over the draws; NaN for a single draw.
    pub fn draw_error(&self) -> f64 {
        self.noise.sqrt()
    }

    /// exp(Σ nats / Σ tokens).
    pub fn perplexity(&self) -> f64 {
        self.per_token().mean.exp()
    }

    /// Σ nats / (ln 2 · Σ bytes): does not depend on the tokenizer.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / LN_2 / self.bytes
    }

    /// Mean of exp(nats / tokens) over sequences: the average of the public reference code, which is not the perplexity
    /// of the corpus.
    pub fn mean_perplexity(&self) -> f64 {
        self.perplexities / self.sequences as f64
    }
}

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Its standard error; NaN for a single value.
    pub error: f64,
}

impl Mean {
    /// Of some numbers.
    pub fn of(values: &[f64]) -> Self {
        let (mean, variance) = mean_and_variance(values);
        Self { mean, error: variance.sqrt() }
    }

    /// Of the ratio of two sums over sequences, from the `[part, whole]` of each, with the error over the choice of
    /// sequences: the spread of each part minus its whole times that ratio. Sequences without any whole tell
    /// nothing; the error is NaN with fewer than two others.
    pub fn of_ratio(pairs: &[[f64; 2]]) -> Self {
        let [part, whole] = [0, 1].map(|i| pairs.iter().map(|pair| pair[i]).sum::<f64>());
        let (n, ratio) = (pairs.iter().filter(|pair| pair[1] > 0.0).count() as f64, part / whole);
        let spread: f64 = pairs.iter().map(|[part, whole]| (part - ratio * whole).powi(2)).sum();
        Self { mean: ratio, error: (spread * n / (n - 1.0)).sqrt() / whole }
    }

    /// Of the differences of pairs.
    pub fn of_differences(a: &[f64], b: &[f64]) -> Self {
        Self::of(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
    }

    /// Whether it is below zero by more than its standard error; for a single number, whether it is below zero.
    pub fn is_below_zero(&self) -> bool {
        // Written so that a NaN mean counts as below.
        let holds = self.mean + if self.error.is_finite() { self.error } else { 0.0 } >= 0.0;
        !holds
    }
}

/// The cost of the same sequences under a model and under their true source, in nats per sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Excess {
    /// Mean exact −log p.
    pub exact: f64,
    /// The model's cost minus the exact cost, paired.
    pub above: Mean,
}

impl Excess {
    /// The comparison; `None` unless the exact cost of every sequence is known.
    pub fn of(scores: &[SequenceScore]) -> Option<Self> {
        let exact: Vec<f64> = scores.iter().map(|score| score.exact).collect::<Option<_>>()?;
        let nats: Vec<f64> = scores.iter().map(|score| score.nats).collect();
        (!exact.is_empty()).then(|| Self { exact: Mean::of(&exact).mean, above: Mean::of_differences(&nats, &exact) })
    }
}

/// The mean, and the variance of the mean.
pub(crate) fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
    (mean, variance / n)
}

/// −log of the mean of exp(−cost), and its variance by the delta method.
pub(crate) fn log_mean(costs: &[f64]) -> (f64, f64) {
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let weights: Vec<f64> = costs.iter().map(|c| (least - c).exp()).collect();
    let (mean, variance) = mean_and_variance(&weights);
    (least - mean.ln(), variance / (mean * mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_logs_by_hand() {
        let (nats, noise) = log_mean(&[1000.0, 1000.0 + 2f64.ln()]);
        assert!((nats - (1000.0 - 0.75f64.ln())).abs() < 1e-9, "{nats}");
        // Weights 1 and ½: mean ¾, variance of the mean 1/16.
        assert!((noise - 0.0625 / 0.5625).abs() < 1e-12, "{noise}");
        assert!(mean_and_variance(&[3.0]).1.is_nan(), "one draw has no error estimate");
        assert_eq!(mean_and_variance(&[1.0, 3.0]), (2.0, 1.0));
    }

    #[test]
    fn costs_are_compared_pair_by_pair() {
        let mean = Mean::of_differences(&[1.0, 3.0], &[2.0, 6.0]);
        assert_eq!(mean, Mean { mean: -2.0, error: 1.0 });
        for (values, below) in [(&[-2.5, -1.5][..], true), (&[-1.0, 3.0], false), (&[-1.0], true), (&[f64::NAN], true)]
        {
            assert_eq!(Mean::of(values).is_below_zero(), below, "{values:?}");
        }
        let score = |nats, exact| SequenceScore { nats, exact, ..SequenceScore::default() };
        let mut scores = [score(11.0, Some(10.0)), score(23.0, Some(20.0))];
        // Differences 1 and 3: mean 2, standard error √2/√2.
        let excess = Excess::of(&scores).unwrap();
        assert_eq!(excess, Excess { exact: 15.0, above: Mean { mean: 2.0, error: 1.0 } });
        scores[1].exact = None;
        assert_eq!((Excess::of(&scores), Excess::of(&[])), (None, None));
    }

    #[test]
    fn sums_and_their_errors_by_hand() {
        let score = |nats, tokens| SequenceScore {
            nats,
            nll: nats - 1.0,
            kl: 1.0,
            tokens,
            bytes: 2.0 * tokens as f64,
            noise: 0.5,
            ..SequenceScore::default()
        };
        let total = Total::of(&[score(10.0, 10), score(90.0, 30)]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(total.per_token().mean, 2.5);
        // Relative to 2.5 nats per token: −15 and +15. Relative to 50 nats per sequence: −40 and +40.
        close(total.per_token().error, (450.0f64 * 2.0).sqrt() / 40.0);
        close(total.per_sequence().error, (3200.0f64 * 2.0).sqrt() / 2.0);
        close(total.per_sequence().mean, 50.0);
        close(total.perplexity(), 2.5f64.exp());
        close(total.bits_per_byte(), 100.0 / LN_2 / 80.0);
        close(total.mean_perplexity(), (1f64.exp() + 3f64.exp()) / 2.0);
        assert_eq!((total.nll, total.kl, total.draw_error(), total.sequences, total.tokens), (98.0, 2.0, 1.0, 2, 40));
        assert_eq!(Mean::of_ratio(&[[10.0, 10.0], [90.0, 30.0]]), total.per_token());
        assert!(
            Total::of(&[score(1.0, 1)]).per_sequence().error.is_nan() && Total::default().per_token().error.is_nan()
        );
        let even: Vec<_> = (1..9).map(|n| score(1.5 * n as f64, n)).collect();
        assert!(Total::of(&even).per_token().error < 1e-7, "equal rates leave no error");
    }

    #[test]
    fn written_sums_are_read_to_the_last_bit() {
        let score = |tokens: usize| {
            let x = tokens as f64;
            let (nats, nll, noise) = (x.sqrt(), x.ln(), 1.0 / x);
            SequenceScore { nats, nll, kl: 0.1, tokens, bytes: x, noise, ..SequenceScore::default() }
        };
        let mut total = Total::of(&(1..40).map(score).collect::<Vec<_>>());
        total.noise = f64::NAN;
        let read: Total = serde_json::from_str(&serde_json::to_string(&total).unwrap()).unwrap();
        assert!(read.noise.is_nan() && Total { noise: 0.0, ..read } == Total { noise: 0.0, ..total.clone() });
    }
}
