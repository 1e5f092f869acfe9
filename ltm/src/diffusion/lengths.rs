use super::Text;
use crate::data::Source;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Samples of the training text that [`Lengths`] are counted in.
pub const COUNTED: u64 = 10_000;

/// A distribution q over the lengths 1..=N of documents: q(l) = (c_l + 1)/(Σc + N), where c_l training samples have l targets.
///
/// An autoregressive model pays for where the end token stands. A masked diffusion model is shown the length, so a bound on
/// −log p(document) must add −log q(length). Windows have a fixed length and pay nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// c_1, c_2, … c_N.
    counts: Vec<u64>,
}

impl Lengths {
    /// Counts the first [`COUNTED`] samples of `source`, each of at most `longest` targets.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn of(source: &dyn Source, longest: usize) -> Result<Self> {
        let (mut tokens, mut targets, mut counts) = (vec![0; longest], vec![0; longest], vec![0; longest]);
        for index in 0..source.samples().unwrap_or(COUNTED).min(COUNTED) {
            let scored = source.fill(index, &mut tokens, &mut targets)?.scored;
            if let Some(last) = (scored as usize).checked_sub(1) {
                counts[last] += 1;
            }
        }
        Ok(Self { counts })
    }

    /// q(1), q(2), … q(N).
    pub fn probabilities(&self) -> Vec<f64> {
        let total = (self.counts.iter().sum::<u64>() + self.counts.len() as u64) as f64;
        self.counts.iter().map(|&count| (count + 1) as f64 / total).collect()
    }

    /// What a text pays for its length, in nats: −log q(length | it is longer than the tokens given).
    ///
    /// # Errors
    /// If the text is longer than N.
    pub fn cost(&self, text: &Text) -> Result<f64> {
        let (q, longest, length) = (self.probabilities(), self.counts.len(), text.tokens.len() - text.context);
        if length > longest {
            let id = text.sample.id;
            return Err(Error::new(format!("sample {id} has {length} tokens, the longest length known is {longest}")));
        }
        Ok(q[text.given..].iter().sum::<f64>().ln() - q[length - 1].ln())
    }

    /// The length that a uniform number in [0, 1) draws from q, given that it is one `among` the lengths 1..=N.
    pub fn draw(&self, uniform: f64, among: RangeInclusive<usize>) -> usize {
        let q = &self.probabilities()[among.start() - 1..*among.end()];
        let mut left = uniform * q.iter().sum::<f64>();
        let drawn = q.iter().position(|q| {
            left -= q;
            left < 0.0
        });
        drawn.map_or(*among.end(), |at| among.start() + at)
    }
}
