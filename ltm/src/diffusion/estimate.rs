use super::masks::{Masks, count_of, stratum};
use super::rows::{Row, score};
use super::{Cost, Network, SITE, Schedule, Text};
use crate::evaluate::mean_and_variance;
use engine::rng::Stream;
use engine::{Error, Result};

/// Sites of a replicate's shared number, of the uniforms that choose masks, and of orders.
const SHIFT: u32 = SITE + 2;
const MASKS: u32 = SITE + 3;
const ORDERS: u32 = SITE + 4;

/// The longest text, in maskable positions, that is scored in random orders: each takes a call per position.
pub const MOST_ORDERED: usize = 64;

/// Most replicates, and most draws in each: both share the 32 bits of a draw's number.
const MOST: usize = 1 << 16;

/// An estimate of a text's cost in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// The estimate.
    pub nats: f64,
    /// Its variance due to the finite number of draws.
    pub noise: f64,
}

/// The draws for one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The weighted −log p of masked tokens, by replicate.
    pub nll: Vec<f64>,
    /// The weighted Z − 1 − log Z of masked tokens, by replicate.
    pub price: Vec<f64>,
    /// The mean log Z of all masked tokens; NaN if there was none.
    pub log_z: f64,
}

impl Estimate {
    /// The text's value by a cost. [`Cost::LogP`] never gives more than [`Cost::ScoreEntropy`]: it judges normalised scores.
    pub fn value(&self, cost: Cost) -> Value {
        let (nats, noise) = mean_and_variance(&self.replicates(cost));
        Value { nats, noise }
    }

    /// The same by replicate.
    pub fn replicates(&self, cost: Cost) -> Vec<f64> {
        match cost {
            Cost::LogP => self.nll.clone(),
            Cost::ScoreEntropy => self.nll.iter().zip(&self.price).map(|(nll, price)| nll + price).collect(),
        }
    }
}

/// Estimates the costs of texts by R replicates of K draws each. All draws for a text depend only on the seed, the sample's
/// id and their number, so its value does not depend on the texts beside it.
#[derive(Clone, Copy, Debug)]
pub struct Estimator {
    schedule: Schedule,
    seed: u64,
    replicates: usize,
    draws: usize,
}

impl Estimator {
    /// An estimator by `replicates` of `draws` each, with the time that a network is told by `schedule`.
    ///
    /// # Errors
    /// If there are fewer than two replicates, which have no error estimate, no draws, or too many.
    pub fn new(schedule: Schedule, seed: u64, replicates: usize, draws: usize) -> Result<Self> {
        if !(2..MOST).contains(&replicates) || !(1..MOST).contains(&draws) {
            return Err(Error::usage(format!(
                "{replicates} replicates of {draws} draws: must be at least 2 of 1, and less than {MOST} of each"
            )));
        }
        Ok(Self { schedule, seed, replicates, draws })
    }

    /// The NELBO of every text, by the number of masks: m is uniform on 1..=n, evenly spread over the draws of a replicate, and
    /// the m positions with the least uniforms are masked, at weight n/m. An upper bound on −log p(x) in expectation, unbiased
    /// for every network and schedule.
    pub fn elbo(&self, network: &mut dyn Network, texts: &[Text]) -> Result<Vec<Estimate>> {
        self.estimate(network, texts, |n, stratum, uniforms| {
            Masks::by_count(count_of(n, stratum), self.schedule, uniforms)
        })
    }

    /// The estimator of the papers' code: t in [ε, 1), masks with probability (1−ε)t, weight 1/t, ε = 10⁻³. It leaves out the
    /// most expensive end of the integral, so it is not a bound: of equally likely tokens it says (1−ε) of the bound.
    pub fn paper(&self, network: &mut dyn Network, texts: &[Text]) -> Result<Vec<Estimate>> {
        self.estimate(network, texts, |_, stratum, uniforms| Masks::of_the_papers(stratum, uniforms))
    }

    /// Draws `masks` for every text, from the number n of its maskable positions, a number in [0, 1) which is evenly spread over
    /// the draws of a replicate, and the positions' uniforms.
    fn estimate(
        &self,
        network: &mut dyn Network,
        texts: &[Text],
        masks: impl Fn(usize, f64, &[(usize, f64)]) -> Masks,
    ) -> Result<Vec<Estimate>> {
        let zero = || Estimate { nll: vec![0.0; self.replicates], price: vec![0.0; self.replicates], log_z: 0.0 };
        let mut estimates: Vec<Estimate> = texts.iter().map(|_| zero()).collect();
        let mut scored = vec![0usize; texts.len()];
        let draws = (0..texts.len()).flat_map(|place| {
            let of_one = move |number| (place, number / self.draws, number % self.draws);
            (0..self.replicates * self.draws).map(of_one)
        });
        let rows = draws.map(|(place, replicate, draw)| {
            let (text, stream) =
                (&texts[place], |site, step| Stream::new(self.seed, site).sample(texts[place].sample.id).step(step));
            let shift = stream(SHIFT, replicate as u32).uniform(0);
            let stream = stream(MASKS, (replicate * MOST + draw) as u32);
            let uniforms: Vec<_> = text.maskable().map(|i| (i, stream.uniform(i as u32))).collect();
            let Masks { at, t, weight } = masks(uniforms.len(), stratum(shift, draw, self.draws), &uniforms);
            ((place, replicate, weight / self.draws as f64), Row { text, scored: at.len(), masked: at, t })
        });
        score(network, rows, |(place, replicate, weight), costs| {
            let estimate = &mut estimates[place];
            estimate.nll[replicate] += weight * costs.iter().map(|cost| cost.nll).sum::<f64>();
            estimate.price[replicate] += weight * costs.iter().map(|cost| cost.price()).sum::<f64>();
            estimate.log_z += costs.iter().map(|cost| cost.log_z).sum::<f64>();
            scored[place] += costs.len();
        })?;
        estimates.iter_mut().zip(scored).for_each(|(estimate, scored)| estimate.log_z /= scored as f64);
        Ok(estimates)
    }

    /// −log of the probability of every text in R·K random orders, a call per position of each. For a network that is not told
    /// the time: what it generates one by one has the mean probability over all orders, so −log of the mean is a tighter upper
    /// bound on −log p(x).
    ///
    /// # Errors
    /// If a text has more than [`MOST_ORDERED`] maskable positions, and those of the network.
    pub fn orders(&self, network: &mut dyn Network, texts: &[Text]) -> Result<Vec<Vec<f64>>> {
        let nats = |text: &Text| {
            let (n, count) = (text.maskable().len(), self.replicates * self.draws);
            if n > MOST_ORDERED {
                return Err(Error::usage(format!(
                    "sample {} has {n} tokens to score: protocol orders takes at most {MOST_ORDERED}",
                    text.sample.id
                )));
            }
            let stream = Stream::new(self.seed, ORDERS).sample(text.sample.id);
            let orders = (0..count).map(|number| stream.step(number as u32).permutation(n)).collect::<Vec<_>>();
            in_orders(network, text, &orders)
        };
        texts.iter().map(nats).collect()
    }
}

/// −log of the product of the probabilities of a text's tokens, revealed one by one, in each of some orders: permutations of
/// the maskable positions, counted from the first.
pub(super) fn in_orders(network: &mut dyn Network, text: &Text, orders: &[Vec<u32>]) -> Result<Vec<f64>> {
    let mut nats = vec![0.0; orders.len()];
    let rows = orders.iter().enumerate().flat_map(|(number, order)| {
        let masked: Vec<usize> = order.iter().map(|&i| text.maskable().start + i as usize).collect();
        (0..masked.len()).map(move |known| {
            let masked = masked[known..].to_vec();
            let t = masked.len() as f64 / text.maskable().len() as f64;
            (number, Row { text, masked, scored: 1, t })
        })
    });
    score(network, rows, |number, costs| nats[number] += costs[0].nll)?;
    Ok(nats)
}
