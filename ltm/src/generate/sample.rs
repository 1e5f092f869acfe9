use engine::rng::Stream;
use engine::{Error, Result};
use serde::Serialize;

/// Random-number site of sampled tokens.
const SITE: u32 = 0x0050_0001;

/// How the next token is chosen from the logits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only the likeliest `top_k` tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability; 1 for all.
    pub top_p: f64,
    /// The same seed gives the same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

/// Draws tokens; token number i of sample s depends on the seed, s, i and the logits only.
///
/// ```
/// use ltm::generate::{Sampler, Sampling};
///
/// let likeliest = Sampling { temperature: 0.0, ..Sampling::default() };
/// assert_eq!(Sampler::new(likeliest, 0)?.next(&[0.1, 2.0, -1.0])?, 1);
/// // The first two tokens together have 98 of 100: no other is drawn.
/// let mut sampler = Sampler::new(Sampling { top_p: 0.9, ..Sampling::default() }, 0)?;
/// assert!((0..50).map(|_| sampler.next(&[1.0, 0.5, -3.0])).all(|token| token.is_ok_and(|t| t < 2)));
/// # Ok::<(), engine::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    stream: Stream,
    drawn: u32,
}

impl Sampler {
    /// A sampler for sample number `sample`.
    ///
    /// # Errors
    /// If the temperature is negative or top-p is not within (0, 1].
    pub fn new(sampling: Sampling, sample: u32) -> Result<Self> {
        if !(sampling.temperature >= 0.0 && sampling.temperature.is_finite()) {
            return Err(Error::usage(format!("temperature {} must be a number from 0 upwards", sampling.temperature)));
        }
        if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
            return Err(Error::usage(format!("top-p {} must be above 0 and at most 1", sampling.top_p)));
        }
        Ok(Self { sampling, stream: Stream::new(sampling.seed, SITE).sample(sample), drawn: 0 })
    }

    /// The next token. Ties go to the lower id.
    ///
    /// # Errors
    /// If a logit is not finite.
    pub fn next(&mut self, logits: &[f64]) -> Result<u16> {
        if let Some(i) = logits.iter().position(|x| !x.is_finite()) {
            return Err(Error::new(format!("the logit of token {i} is not finite: the weights are damaged")));
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let u = self.stream.uniform(self.drawn);
        self.drawn += 1;
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        if temperature == 0.0 {
            return Ok(order[0] as u16);
        }
        if top_k > 0 {
            order.truncate(top_k);
        }
        let best = logits[order[0]];
        let weights: Vec<f64> = order.iter().map(|&i| ((logits[i] - best) / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = 0.0;
        let mut count = 0;
        while count < weights.len() && kept < top_p * total {
            kept += weights[count];
            count += 1;
        }
        let mut left = u * kept;
        for (&i, w) in order[..count].iter().zip(&weights) {
            left -= w;
            if left < 0.0 {
                return Ok(i as u16);
            }
        }
        Ok(order[count - 1] as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sampling: Sampling, logits: &[f64]) -> Vec<f64> {
        let mut sampler = Sampler::new(sampling, 0).unwrap();
        let mut counts = vec![0.0; logits.len()];
        (0..20_000).for_each(|_| counts[sampler.next(logits).unwrap() as usize] += 1.0 / 20_000.0);
        counts
    }

    #[test]
    fn tokens_come_with_their_probability() {
        let logits: Vec<f64> = [0.1f64, 0.5, 0.15, 0.25].iter().map(|p| p.ln()).collect();
        let close = |got: Vec<f64>, want: [f64; 4]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 0.015), "{got:?}")
        };
        close(shares(Sampling::default(), &logits), [0.1, 0.5, 0.15, 0.25]);
        close(shares(Sampling { top_k: 2, ..Sampling::default() }, &logits), [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        close(shares(Sampling { top_p: 0.6, ..Sampling::default() }, &logits), [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        close(shares(Sampling { temperature: 0.0, ..Sampling::default() }, &logits), [0.0, 1.0, 0.0, 0.0]);
        // Temperature ½ squares the odds: 1, 25, 2.25, 6.25 of 34.5.
        let sharp = shares(Sampling { temperature: 0.5, ..Sampling::default() }, &logits);
        close(sharp, [1.0 / 34.5, 25.0 / 34.5, 2.25 / 34.5, 6.25 / 34.5]);
    }

    #[test]
    fn what_cannot_be_sampled_is_refused() {
        assert!(Sampler::new(Sampling { temperature: -1.0, ..Sampling::default() }, 0).is_err());
        assert!(Sampler::new(Sampling { top_p: 0.0, ..Sampling::default() }, 0).is_err());
        let mut sampler = Sampler::new(Sampling::default(), 0).unwrap();
        assert!(sampler.next(&[0.0, f64::NAN]).unwrap_err().to_string().contains("token 1"));
    }
}
