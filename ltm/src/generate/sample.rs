use super::Writing;
use engine::rng::Stream;
use engine::{Error, Result};

/// Random-number site of sampled tokens.
const SITE: u32 = 0x0050_0001;

/// Draws tokens; token number i of sample s depends on the seed, s, i and the logits only.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f64,
    top_k: usize,
    top_p: f64,
    stream: Stream,
    drawn: u32,
}

impl Sampler {
    /// A sampler for sample number `sample`.
    ///
    /// # Errors
    /// If the temperature is negative or top-p is not within (0, 1].
    pub fn new(writing: &Writing, sample: u32) -> Result<Self> {
        let &Writing { temperature, top_k, top_p, seed, .. } = writing;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(Error::usage(format!("temperature {temperature} must be a number from 0 upwards")));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::usage(format!("top-p {top_p} must be above 0 and at most 1")));
        }
        Ok(Self { temperature, top_k, top_p, stream: Stream::new(seed, SITE).sample(sample), drawn: 0 })
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
        let Self { temperature, top_k, top_p, .. } = *self;
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

    fn shares(writing: Writing, logits: &[f64]) -> Vec<f64> {
        let mut sampler = Sampler::new(&writing, 0).unwrap();
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
        let all = Writing::default;
        close(shares(all(), &logits), [0.1, 0.5, 0.15, 0.25]);
        close(shares(Writing { top_k: 2, ..all() }, &logits), [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        close(shares(Writing { top_p: 0.6, ..all() }, &logits), [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        close(shares(Writing { temperature: 0.0, ..all() }, &logits), [0.0, 1.0, 0.0, 0.0]);
        // Temperature ½ squares the odds: 1, 25, 2.25, 6.25 of 34.5.
        let sharp = shares(Writing { temperature: 0.5, ..all() }, &logits);
        close(sharp, [1.0 / 34.5, 25.0 / 34.5, 2.25 / 34.5, 6.25 / 34.5]);
        let damaged = Sampler::new(&all(), 0).unwrap().next(&[0.0, f64::NAN]);
        assert!(damaged.unwrap_err().to_string().contains("token 1"));
    }
}
