//! Sums of nats by kind of token.

use ltm::evaluate::Mean;
use std::collections::BTreeMap;

/// Sums by kind of token, of every sequence.
#[derive(Clone, Debug)]
pub struct Tally<K> {
    sequences: usize,
    kinds: BTreeMap<K, Entry>,
}

/// Nats and tokens of one or more kinds, `[nats, tokens]` of every sequence.
#[derive(Clone, Debug, Default)]
pub struct Entry(pub Vec<[f64; 2]>);

impl<K: Ord> Tally<K> {
    /// No tokens in so many sequences.
    pub fn new(sequences: usize) -> Self {
        Self { sequences, kinds: BTreeMap::new() }
    }

    /// Adds nats to the kind `key` in a sequence, and so many tokens.
    pub fn add(&mut self, sequence: usize, key: K, nats: f64, tokens: f64) {
        let entry = self.kinds.entry(key).or_insert_with(|| Entry(vec![[0.0; 2]; self.sequences]));
        let [sum, count] = &mut entry.0[sequence];
        *sum += nats;
        *count += tokens;
    }

    /// The kinds that `wanted` names, together.
    pub fn of(&self, wanted: impl Fn(&K) -> bool) -> Entry {
        let mut all = Entry(vec![[0.0; 2]; self.sequences]);
        for (_, entry) in self.kinds.iter().filter(|(key, _)| wanted(key)) {
            for (sum, [nats, count]) in all.0.iter_mut().zip(&entry.0) {
                *sum = [sum[0] + nats, sum[1] + count];
            }
        }
        all
    }

    /// All kinds that occur.
    pub fn kinds(&self) -> impl Iterator<Item = &K> {
        self.kinds.keys()
    }
}

impl Entry {
    /// Tokens in all sequences.
    pub fn tokens(&self) -> f64 {
        self.0.iter().map(|[_, tokens]| tokens).sum()
    }

    /// Nats of a token, with the error over sequences; NaN without tokens.
    pub fn per_token(&self) -> Mean {
        Mean::of_ratio(&self.0)
    }

    /// Nats of a sequence.
    pub fn per_sequence(&self) -> Mean {
        Mean::of(&self.0.iter().map(|[nats, _]| *nats).collect::<Vec<_>>())
    }

    /// Nats of a sequence minus those of `other`, paired.
    pub fn less_per_sequence(&self, other: &Self) -> Mean {
        Mean::of(&self.0.iter().zip(&other.0).map(|([a, _], [b, _])| a - b).collect::<Vec<_>>())
    }

    /// Nats of a token minus those of `other` for the same tokens, paired by sequence.
    pub fn less(&self, other: &Self) -> Mean {
        let differences = self.0.iter().zip(&other.0).map(|([a, tokens], [b, _])| [a - b, *tokens]);
        Mean::of_ratio(&differences.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_by_hand() {
        let mut tally = Tally::new(2);
        for (sequence, key, nats) in [(0, 'a', 1.0), (0, 'a', 2.0), (1, 'a', 6.0), (1, 'b', 5.0)] {
            tally.add(sequence, key, nats, 1.0);
        }
        let a = tally.of(|key| *key == 'a');
        assert_eq!((a.tokens(), a.per_token().mean, a.per_sequence().mean), (3.0, 3.0, 4.5));
        assert_eq!(tally.of(|_| true).per_sequence(), Mean { mean: 7.0, error: 4.0 });
        let other = Entry(vec![[1.0, 2.0], [6.0, 1.0]]);
        assert_eq!(a.less(&other).mean, 2.0 / 3.0);
        assert_eq!(a.less_per_sequence(&other), Mean { mean: 1.0, error: 1.0 });
        assert!(tally.of(|key| *key == 'c').per_token().mean.is_nan());
        assert_eq!(tally.kinds().collect::<String>(), "ab");
    }
}
