//! Whether two measurements of the same work differ, are the same, or cannot be told apart.

use crate::Samples;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// Times within this factor of each other count as the same: 3 %.
pub const MARGIN: f64 = 1.03;

/// The accepted probability that chance alone puts the true ratio outside its interval.
pub const CHANCE: f64 = 0.01;

/// What a comparison says about the time now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Shorter than then, by more than [`MARGIN`] and beyond chance.
    Faster,
    /// Longer than then, by more than [`MARGIN`] and beyond chance.
    Slower,
    /// The whole interval of the ratio is within [`MARGIN`].
    Same,
    /// The run cannot tell: see [`Change::smallest`].
    Ambiguous,
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Same => "same",
            Self::Ambiguous => "ambiguous",
        })
    }
}

/// The change of a time between two measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The time now over the time then.
    pub ratio: f64,
    /// The interval of this ratio, which misses the true one with a probability of [`CHANCE`], widened by the change of the
    /// machine itself; `None` if there are too few passes for any.
    pub interval: Option<[f64; 2]>,
    /// The verdict.
    pub verdict: Verdict,
    /// The smallest change, as a factor above 1, that would have been called faster or slower with times that scatter as
    /// these do; `None` if there are too few passes for any.
    pub smallest: Option<f64>,
}

impl Change {
    /// `overlap` is how far apart two medians must be for the middle times of both not to overlap.
    fn judge(ratio: f64, interval: Option<[f64; 2]>, overlap: f64, drift: f64) -> Self {
        let drift = drift.max(1.0);
        let Some([low, high]) = interval else {
            return Self { ratio, interval: None, verdict: Verdict::Ambiguous, smallest: None };
        };
        let smallest = (ratio / low).max(high / ratio).max(overlap).max(MARGIN) * drift;
        let [low, high] = [low / drift, high * drift];
        let is_far = ratio.max(1.0 / ratio) > overlap.max(MARGIN * drift);
        let verdict = match () {
            () if low >= 1.0 / MARGIN && high <= MARGIN => Verdict::Same,
            () if high < 1.0 && is_far => Verdict::Faster,
            () if low > 1.0 && is_far => Verdict::Slower,
            () => Verdict::Ambiguous,
        };
        Self { ratio, interval: Some([low, high]), verdict, smallest: Some(smallest) }
    }
}

/// Compares the times of two runs, `now` with `then`. Passes count, not single samples: those of one pass share the machine's
/// load and memory layout.
///
/// The interval of the ratio holds every factor for which the exact two-sided rank-sum test of Mann and Whitney does not
/// tell the passes of one run from those of the other, scaled by it. It is widened by `drift` ≥ 1, the change of the machine's
/// own ceilings between the runs. A run of the same program at another time meets another load, which no test of its own
/// passes can know. So a change is reported only if, in addition, the times from the 20 % to the 80 % quantile of both runs
/// do not overlap.
pub fn compare(then: &Samples, now: &Samples, drift: f64) -> Change {
    let (a, b) = (then.medians(), now.medians());
    let ratios = b.iter().flat_map(|now| a.iter().map(move |then| now / then)).collect();
    let ([low_then, high_then], [low_now, high_now]) = (then.spread(), now.spread());
    let (then, now) = (then.median(), now.median());
    let overlap = if now > then { high_then / then * (now / low_now) } else { high_now / now * (then / low_then) };
    Change::judge(now / then, interval(ratios, &rank_sum_counts(a.len(), b.len())), overlap, drift)
}

/// Compares times that were taken in turns: pass by pass, `then[i]` beside `now[i]`. Load that lasts longer than a turn
/// changes both and so cancels.
///
/// The interval holds every factor for which the exact two-sided signed-rank test of Wilcoxon does not tell the logarithms
/// of the ratios, scaled by it, from a distribution around zero. The ratio is its middle (of Hodges and Lehmann).
pub fn compare_in_turns(then: &Samples, now: &Samples) -> Change {
    let logs: Vec<f64> = now.medians().iter().zip(then.medians()).map(|(now, then)| (now / then).ln()).collect();
    let n = logs.len();
    let means: Vec<f64> =
        (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))).map(|(i, j)| 0.5 * (logs[i] + logs[j])).collect();
    let ratio = crate::row::median(&means).exp();
    let interval = interval(means, &signed_rank_counts(n)).map(|ends| ends.map(f64::exp));
    Change::judge(ratio, interval, 1.0, 1.0)
}

/// The smallest and largest of `values` after leaving out as many on each side as the test still calls a difference:
/// `counts[u]` is the number of equally likely orders in which `u` values are on the other side.
fn interval(mut values: Vec<f64>, counts: &[f64]) -> Option<[f64; 2]> {
    let total: f64 = counts.iter().sum();
    let mut tail = 0.0;
    let beyond_chance = |count: &&f64| {
        tail += 2.0 * **count / total;
        tail <= CHANCE
    };
    let left_out = counts.iter().take_while(beyond_chance).count().checked_sub(1)?;
    values.sort_by(f64::total_cmp);
    Some([values[left_out], values[values.len() - 1 - left_out]])
}

/// The number of orders of `n` and `m` samples in which the second kind exceeds the first in 0, 1, … n·m pairs: the
/// coefficients of the Gaussian binomial ∏ (1 − q^(m+i)) / (1 − qⁱ), i = 1…n.
fn rank_sum_counts(n: usize, m: usize) -> Vec<f64> {
    let mut counts = vec![0.0; n * m + 1];
    counts[0] = 1.0;
    for i in 1..=n {
        for u in (m + i..counts.len()).rev() {
            counts[u] -= counts[u - m - i];
        }
        for u in i..counts.len() {
            counts[u] += counts[u - i];
        }
    }
    counts
}

/// The number of signs of the ranks 1…n whose positive ranks sum to 0, 1, … n(n+1)/2: the coefficients of ∏ (1 + qⁱ).
fn signed_rank_counts(n: usize) -> Vec<f64> {
    let mut counts = vec![0.0; n * (n + 1) / 2 + 1];
    counts[0] = 1.0;
    for i in 1..=n {
        for u in (i..counts.len()).rev() {
            counts[u] += counts[u - i];
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::rng::Stream;

    /// `n` passes of ten times around `median`: normal noise of the given relative size for every time, and as much
    /// again shared by the times of a pass. As on a busy machine, one in ten of the late times is three times as late.
    fn draw(trial: u32, site: u32, n: u32, median: f64, noise: f64) -> Samples {
        let stream = Stream::new(11, site).step(trial);
        let late = |i: u32| if stream.below(10_000 + i, 10) == 0 { 3.0 } else { 1.0 };
        let time = |i: u32, shared: f64| match stream.normal(i) {
            x if x > 0.0 => 1.0 + noise * (shared + x * late(i)),
            x => 1.0 + noise * (shared + x),
        };
        let pass = |p: u32| (0..10).map(|i| median * time(10 * p + i, stream.normal(1000 + p)).max(0.05)).collect();
        Samples((0..n).map(pass).collect())
    }

    /// The share of trials of a change by `factor` with this verdict.
    fn share(verdict: Verdict, factor: f64, noise: f64, n: u32) -> f64 {
        const TRIALS: u32 = 400;
        let has = |t: &u32| {
            let (then, now) = (draw(*t, 1, n, 1e-3, noise), draw(*t, 2, n, 1e-3 * factor, noise));
            compare(&then, &now, 1.0).verdict == verdict
        };
        (0..TRIALS).filter(has).count() as f64 / f64::from(TRIALS)
    }

    #[test]
    fn draws_of_one_distribution_are_not_called_changed() {
        for n in [5, 6, 7, 20] {
            for noise in [0.02, 0.1, 0.5] {
                let changed = share(Verdict::Faster, 1.0, noise, n) + share(Verdict::Slower, 1.0, noise, n);
                assert!(changed <= CHANCE, "{n} passes, noise {noise}: {changed}");
            }
        }
    }

    #[test]
    fn a_change_beyond_the_margin_is_hardly_ever_called_the_same() {
        for noise in [0.002, 0.01, 0.1] {
            assert!(share(Verdict::Same, 1.04, noise, 6) <= CHANCE, "noise {noise}");
        }
        assert!(share(Verdict::Same, 1.0, 0.003, 6) >= 0.9, "too strict");
    }

    #[test]
    fn a_tenth_is_seen_through_two_percent_of_noise() {
        for n in [6, 7, 20] {
            let part = share(Verdict::Slower, 1.1, 0.02, n);
            assert!(part >= 0.9, "{n} passes: {part}");
        }
        assert_eq!(share(Verdict::Slower, 1.02, 0.001, 20), 0.0, "too small to matter");
    }

    #[test]
    fn every_verdict_has_its_samples() {
        use Verdict::{Ambiguous, Faster, Same, Slower};
        // Passes of one time each.
        let passes = |times: [f64; 6]| Samples(times.map(|time| vec![time]).into());
        let then = passes([1.0, 1.002, 1.004, 0.998, 0.996, 1.001]);
        let by = |factor: f64| passes([1.0, 1.002, 1.004, 0.998, 0.996, 1.001].map(|time| factor * time));
        let says = |now: &Samples| compare(&then, now, 1.0).verdict;
        assert_eq!(
            [0.8, 0.95, 1.0, 1.01, 1.05, 2.0].map(|f| says(&by(f))),
            [Faster, Faster, Same, Same, Slower, Slower]
        );
        assert_eq!(says(&by(1.03)), Ambiguous, "at the margin");
        // Twice as long in the middle, but the passes overlap: the run cannot tell, and says what it could have seen.
        let wild = compare(&then, &passes([0.7, 0.99, 2.05, 2.05, 3.0, 4.0]), 1.0);
        assert_eq!(wild.verdict, Ambiguous);
        let (ratio, smallest) = (wild.ratio, wild.smallest.unwrap());
        assert!((ratio - 2.05).abs() < 0.01 && smallest > 2.0, "{wild:?}");
        // The machine changed more than the times.
        assert_eq!(compare(&then, &by(1.2), 1.3).verdict, Ambiguous);
        assert_eq!(compare(&then, &by(1.0), 1.1).verdict, Ambiguous);
        assert_eq!(compare(&then, &by(1.5), 1.3).verdict, Slower);
        // Three passes can show nothing.
        let few = compare(&Samples(then.0[..3].to_vec()), &Samples(by(2.0).0[..3].to_vec()), 1.0);
        assert_eq!((few.verdict, few.interval, few.smallest), (Ambiguous, None, None));
    }

    #[test]
    fn a_change_of_the_smallest_size_is_seen() {
        let (then, now) = (draw(0, 1, 6, 1.0, 0.05), draw(0, 2, 6, 1.0, 0.05));
        let first = compare(&then, &now, 1.0);
        let smallest = first.smallest.unwrap() / first.ratio;
        let times = |factor: f64| Samples(now.0.iter().map(|pass| pass.iter().map(|t| factor * t).collect()).collect());
        assert_eq!(compare(&then, &times(1.001 * smallest), 1.0).verdict, Verdict::Slower);
        assert_ne!(compare(&then, &times(0.98 * smallest), 1.0).verdict, Verdict::Slower);
    }

    #[test]
    fn turns_cancel_a_drift() {
        // The machine slows down by half during the run; the second program takes 5 % longer at any time.
        let load = |i: usize| 1.0 + 0.05 * i as f64 + 0.001 * (i * i % 3) as f64;
        let then = Samples((0..10).map(|i| vec![load(i)]).collect());
        let by =
            |factor: f64| Samples((0..10).map(|i| vec![factor * load(i) * (1.0 + 0.002 * (i % 2) as f64)]).collect());
        assert_eq!(compare(&then, &by(1.05), 1.0).verdict, Verdict::Ambiguous);
        let verdicts = [0.9, 1.0, 1.05].map(|factor| compare_in_turns(&then, &by(factor)).verdict);
        assert_eq!(verdicts, [Verdict::Faster, Verdict::Same, Verdict::Slower]);
        assert!((compare_in_turns(&then, &by(1.05)).ratio - 1.051).abs() < 0.001);
        let few = Samples(then.0[..7].to_vec());
        assert_eq!(compare_in_turns(&few, &few).smallest, None, "the signs of seven ratios agree by chance too often");
    }

    #[test]
    fn the_tests_are_exact() {
        assert_eq!(rank_sum_counts(2, 2), [1.0, 1.0, 2.0, 1.0, 1.0]);
        assert_eq!(rank_sum_counts(20, 20).iter().sum::<f64>(), 137_846_528_820.0);
        assert_eq!(signed_rank_counts(3), [1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]);
        // Of six and six: two pairs on the other side, 8 of 924 orders. Of eight signs: none, 2 of 256. Of ten: 3, 10 of 1024.
        let left_out = |values: usize, counts: &[f64]| interval((0..values).map(|i| i as f64).collect(), counts);
        assert_eq!(left_out(36, &rank_sum_counts(6, 6)), Some([2.0, 33.0]));
        assert_eq!(left_out(36, &signed_rank_counts(8)), Some([0.0, 35.0]));
        assert_eq!(left_out(55, &signed_rank_counts(10)), Some([3.0, 51.0]));
        assert_eq!(
            (left_out(16, &rank_sum_counts(4, 4)), left_out(25, &rank_sum_counts(5, 5))),
            (None, Some([0.0, 24.0]))
        );
    }
}
