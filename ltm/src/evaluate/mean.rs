//! Means and what is known of them.

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Standard error over sequences; not a number for a single one.
    pub error: f64,
}

impl Mean {
    /// Of some numbers.
    pub fn of(values: &[f64]) -> Self {
        let (mean, variance) = mean_and_noise(values);
        Self { mean, error: variance.sqrt() }
    }

    /// Of the differences of pairs.
    pub fn of_differences(a: &[f64], b: &[f64]) -> Self {
        Self::of(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
    }

    /// Whether it is below zero by more than its standard error; a single number, whether it is below zero.
    pub fn is_below_zero(&self) -> bool {
        // Written so that a mean that is not a number counts as below.
        let holds = self.mean + if self.error.is_finite() { self.error } else { 0.0 } >= 0.0;
        !holds
    }
}

/// Mean and the variance of the mean.
pub fn mean_and_noise(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let var = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
    (mean, var / n)
}

/// −log of the mean of exp(−cost), and its variance by the delta method.
pub fn log_mean(costs: &[f64]) -> (f64, f64) {
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let weights: Vec<f64> = costs.iter().map(|c| (least - c).exp()).collect();
    let (mean, noise) = mean_and_noise(&weights);
    (least - mean.ln(), noise / (mean * mean))
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
        assert!(mean_and_noise(&[3.0]).1.is_nan(), "one draw says nothing of its noise");
        assert_eq!(mean_and_noise(&[1.0, 3.0]), (2.0, 1.0));
    }

    #[test]
    fn means_of_pairs() {
        let mean = Mean::of_differences(&[1.0, 3.0], &[2.0, 6.0]);
        assert_eq!(mean, Mean { mean: -2.0, error: 1.0 });
        assert!(mean.is_below_zero() && !Mean::of(&[-1.0, 3.0]).is_below_zero() && Mean::of(&[-1.0]).is_below_zero());
    }
}
