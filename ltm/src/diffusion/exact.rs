use super::rows::{Row, score};
use super::{Cost, Network, Schedule, Text};
use engine::{Error, Result};

/// The longest text, in maskable positions, whose masks are enumerated: n positions have 2^n.
pub const MOST_EXACT: usize = 10;

/// The exact costs of a text under a network that is not told the time, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exact {
    /// The NELBO: the mean over all orders of revealing the text of Σ −log p.
    pub nelbo: f64,
    /// −log p(x): p is the mean over all orders of the product of the probabilities.
    pub nll: f64,
}

impl Exact {
    /// Enumerates the sets of known positions. With token i revealed last, a set U has f(U) = the mean over i in U of f(U∖i) and
    /// the cost of i given U∖i: added for the NELBO, multiplied as a probability for p.
    ///
    /// # Errors
    /// If the text has more than [`MOST_EXACT`] maskable positions, and those of the network.
    pub fn of(network: &mut dyn Network, text: &Text) -> Result<Self> {
        let n = enumerable(text)?;
        let all = (1usize << n) - 1;
        let has = |set: usize, i: usize| set >> i & 1 == 1;
        // The −log p of position i given the set of known ones.
        let mut costs = vec![0.0; (all + 1) * n];
        let rows = (0..all).map(|known| {
            let masked: Vec<usize> = (0..n).filter(|&i| !has(known, i)).map(|i| text.maskable().start + i).collect();
            let t = masked.len() as f64 / n as f64;
            (known, Row { text, scored: masked.len(), masked, t })
        });
        score(network, rows, |known, tokens| {
            let unknown = (0..n).filter(|&i| !has(known, i));
            unknown.zip(tokens).for_each(|(i, token)| costs[known * n + i] = token.nll);
        })?;
        let (mut nelbo, mut p) = (vec![0.0; all + 1], vec![1.0; all + 1]);
        for set in 1..=all {
            let last = || (0..n).filter(|&i| has(set, i)).map(|i| (set ^ 1 << i, costs[(set ^ 1 << i) * n + i]));
            let size = f64::from(set.count_ones());
            nelbo[set] = last().map(|(before, cost)| nelbo[before] + cost).sum::<f64>() / size;
            p[set] = last().map(|(before, cost)| p[before] * (-cost).exp()).sum::<f64>() / size;
        }
        Ok(Self { nelbo: nelbo[all], nll: -p[all].ln() })
    }
}

/// The NELBO of a text under any network by a cost, in nats: the integral over t by the midpoint rule at `nodes` times, at each the
/// mean over all sets of masks.
///
/// # Errors
/// If the text has more than [`MOST_EXACT`] maskable positions, and those of the network.
pub fn integral(network: &mut dyn Network, text: &Text, schedule: Schedule, cost: Cost, nodes: u32) -> Result<f64> {
    let n = enumerable(text)?;
    let rows = (0..nodes).flat_map(|node| {
        let t = (f64::from(node) + 0.5) / f64::from(nodes);
        (1usize..1 << n).map(move |set| {
            let masked: Vec<_> =
                text.maskable().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, at)| at).collect();
            let a = schedule.masked(t);
            let chance = a.powi(masked.len() as i32) * (1.0 - a).powi((n - masked.len()) as i32);
            (schedule.weight(t) * chance / f64::from(nodes), Row { text, scored: masked.len(), masked, t })
        })
    });
    let mut nats = 0.0;
    score(network, rows, |weight, costs| nats += weight * costs.iter().map(|&token| cost.of(token)).sum::<f64>())?;
    Ok(nats)
}

/// The number of maskable positions, if all their masks can be enumerated.
fn enumerable(text: &Text) -> Result<usize> {
    let n = text.maskable().len();
    if n > MOST_EXACT {
        return Err(Error::usage(format!("{n} tokens to score, must be at most {MOST_EXACT} to enumerate all masks")));
    }
    Ok(n)
}
