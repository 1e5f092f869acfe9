use super::Writing;
use engine::rng::Stream;
use engine::{Error, Result};
use std::collections::BTreeSet;

/// Random-number site of sampled tokens.
const SITE: u32 = 0x0050_0001;

/// Draws tokens; token number i of sample s depends only on the seed, s, i and the logits.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f64,
    top_k: usize,
    top_p: f64,
    min_p: f64,
    repetition_penalty: f64,
    stream: Stream,
    drawn: u32,
}

impl Sampler {
    /// A sampler for sample number `sample`.
    ///
    /// # Errors
    /// If an option is not within its range, see [`Writing`].
    pub fn new(writing: &Writing, sample: u32) -> Result<Self> {
        let &Writing { temperature, top_k, top_p, min_p, repetition_penalty, seed, .. } = writing;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(Error::usage(format!("temperature {temperature} must be a number of 0 or more")));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::usage(format!("top-p {top_p} must be above 0 and at most 1")));
        }
        if !(0.0..=1.0).contains(&min_p) {
            return Err(Error::usage(format!("min-p {min_p} must be from 0 to 1")));
        }
        if !(0.01..=100.0).contains(&repetition_penalty) {
            return Err(Error::usage(format!("repetition penalty {repetition_penalty} must be from 0.01 to 100")));
        }
        let stream = Stream::new(seed, SITE).sample(sample);
        Ok(Self { temperature, top_k, top_p, min_p, repetition_penalty, stream, drawn: 0 })
    }

    /// The token after `text`. Ties go to the lower id.
    ///
    /// # Errors
    /// If a logit is not finite.
    pub fn next(&mut self, logits: &[f64], text: &[u16]) -> Result<u16> {
        let u = self.stream.uniform(self.drawn);
        self.drawn += 1;
        self.pick(logits, text, u)
    }

    /// The token that a uniform number `u` in [0, 1) draws for a text with the tokens `text`: down the tokens by probability,
    /// until their sum exceeds that share of the sum of all. Ties go to the lower id.
    ///
    /// # Errors
    /// If a logit is not finite.
    pub fn pick(&self, logits: &[f64], text: &[u16], u: f64) -> Result<u16> {
        if let Some(i) = logits.iter().position(|x| !x.is_finite()) {
            return Err(Error::new(format!(
                "the logit of token {i} is not finite: training has diverged, or the weights are damaged"
            )));
        }
        let Self { temperature, top_k, top_p, min_p, repetition_penalty, .. } = *self;
        let mut logits = logits.to_vec();
        if repetition_penalty != 1.0 {
            for token in text.iter().copied().collect::<BTreeSet<u16>>() {
                let logit = &mut logits[usize::from(token)];
                *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            }
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
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
        // The first weight is that of the most likely token, 1.
        while count < weights.len() && kept < top_p * total && weights[count] >= min_p {
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

    /// How often each token follows a text of the first two.
    fn shares(writing: Writing, logits: &[f64]) -> Vec<f64> {
        let mut sampler = Sampler::new(&writing, 0).unwrap();
        let mut counts = vec![0.0; logits.len()];
        (0..20_000).for_each(|_| counts[sampler.next(logits, &[0, 1, 1]).unwrap() as usize] += 1.0 / 20_000.0);
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
        // Of the largest probability ½, 0.4 is 0.2 and 0.6 is 0.3; temperature ½ squares both.
        close(shares(Writing { min_p: 0.4, ..all() }, &logits), [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        close(shares(Writing { min_p: 0.6, ..all() }, &logits), [0.0, 1.0, 0.0, 0.0]);
        close(shares(Writing { min_p: 0.2, temperature: 0.5, ..all() }, &logits), [0.0, 0.8, 0.0, 0.2]);
        close(shares(Writing { min_p: 1.0, ..all() }, &[0.0, 1.0, 1.0, 0.5]), [0.0, 0.5, 0.5, 0.0]);
        // The first two are in the text: ln 0.1 and ln 0.5 are doubled, ln 4 is halved. Odds 0.01, 0.25, 0.15, 0.25 of 0.66.
        let penalty = Writing { repetition_penalty: 2.0, ..all() };
        close(shares(penalty.clone(), &logits), [0.01, 0.25, 0.15, 0.25].map(|odds| odds / 0.66));
        close(shares(penalty, &[4f64.ln(), 0.0, 0.0, 0.0]), [0.4, 0.2, 0.2, 0.2]);
        let damaged = Sampler::new(&all(), 0).unwrap().next(&[0.0, f64::NAN], &[]);
        assert!(damaged.unwrap_err().to_string().contains("token 1"));
    }
}
