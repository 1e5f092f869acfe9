//! Whether two measurements of the same work differ by more than their noise.

use super::Samples;
use std::cmp::Ordering;

/// Medians closer than this count as equal for any noise: 3 %.
pub const LEAST: f64 = 1.03;

/// The accepted probability of a difference reported by chance.
pub const CHANCE: f64 = 0.01;

/// Compares the time `now` with the time `then`: `Less` is faster. A change is reported if all three conditions hold:
///
/// 1. *spread*: the intervals from the 20 % to the 80 % quantile do not touch;
/// 2. *chance*: if the medians of passes all came from the same distribution, they would be ordered like this with a
///    probability of at most [`CHANCE`] (two-sided rank-sum test). Single samples are not independent: those of one
///    pass share the machine's load and memory layout;
/// 3. *size*: the medians differ by more than a factor of [`LEAST`] · `drift`, where `drift` ≥ 1 is the change of the
///    machine's own ceilings between the two.
pub fn compare(then: &Samples, now: &Samples, drift: f64) -> Ordering {
    let ([low_then, high_then], [low_now, high_now]) = (then.spread(), now.spread());
    let ratio = now.median() / then.median();
    let apart = low_now > high_then || high_now < low_then;
    let large = ratio.max(1.0 / ratio) > LEAST * drift.max(1.0);
    let beyond_chance = || rank_sum(&then.medians(), &now.medians()) <= CHANCE;
    if apart && large && beyond_chance() { ratio.total_cmp(&1.0) } else { Ordering::Equal }
}

/// Two-sided p-value of the rank-sum test of Mann and Whitney: if both come from the same distribution, the
/// distribution of the number of pairs in which `b` exceeds `a` is computed exactly. Ties count half, which favours no
/// change.
fn rank_sum(a: &[f64], b: &[f64]) -> f64 {
    let pairs = a.iter().flat_map(|x| b.iter().map(move |y| (x, y)));
    let above: f64 = pairs.map(|(x, y)| if y > x { 1.0 } else { 0.5 * f64::from(u8::from(x == y)) }).sum();
    // The smaller side's tail, doubled.
    let least = above.min((a.len() * b.len()) as f64 - above).ceil() as usize;
    let counts = rank_sum_counts(a.len(), b.len());
    let total: f64 = counts.iter().sum();
    (2.0 * counts[..=least].iter().sum::<f64>() / total).min(1.0)
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

    /// The share of trials in which a change by `factor` is reported.
    fn called(factor: f64, noise: f64, n: u32) -> f64 {
        const TRIALS: u32 = 2000;
        let changed = |t: &u32| {
            let (then, now) = (draw(*t, 1, n, 1e-3, noise), draw(*t, 2, n, 1e-3 * factor, noise));
            let verdict = compare(&then, &now, 1.0);
            verdict == Ordering::Greater || verdict == Ordering::Less && factor <= 1.0
        };
        (0..TRIALS).filter(changed).count() as f64 / f64::from(TRIALS)
    }

    #[test]
    fn draws_of_one_distribution_are_unchanged() {
        for n in [5, 6, 7, 20] {
            for noise in [0.02, 0.1, 0.5] {
                let part = called(1.0, noise, n);
                assert!(part <= CHANCE, "{n} passes, noise {noise}: {part}");
            }
        }
    }

    #[test]
    fn a_tenth_is_seen_through_two_percent_of_noise() {
        for n in [6, 7, 20] {
            let part = called(1.1, 0.02, n);
            assert!(part >= 0.9, "{n} passes: {part}");
        }
        assert!(called(1.02, 0.001, 20) == 0.0, "too small to matter");
        let (then, now) = (draw(0, 1, 20, 1.0, 0.01), draw(0, 2, 20, 0.8, 0.01));
        assert_eq!(compare(&then, &now, 1.0), Ordering::Less);
        assert_eq!(compare(&now, &then, 1.0), Ordering::Greater);
        assert_eq!(compare(&then, &now, 1.3), Ordering::Equal, "the machine changed more");
        assert_eq!(compare(&draw(0, 1, 3, 1.0, 0.01), &now, 1.0), Ordering::Less);
        assert_eq!(compare(&draw(0, 1, 3, 1.0, 0.01), &draw(0, 2, 3, 0.5, 0.01), 1.0), Ordering::Equal, "too few");
    }

    #[test]
    fn the_test_of_ranks_is_exact() {
        // Complete separation of 5 and 5: 2 of the 252 orders.
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
        assert!((rank_sum(&a, &b) - 2.0 / 252.0).abs() < 1e-12 && rank_sum(&a, &b) == rank_sum(&b, &a));
        assert_eq!(rank_sum(&a, &a), 1.0);
        assert_eq!(rank_sum_counts(2, 2), [1.0, 1.0, 2.0, 1.0, 1.0]);
        assert_eq!(rank_sum_counts(20, 20).iter().sum::<f64>(), 137_846_528_820.0);
    }
}
