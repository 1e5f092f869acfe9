use engine::{Error, Result};

/// Times of one piece of work in seconds per call, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// From times in any order.
    ///
    /// # Errors
    /// If there is none, or one that is no time.
    pub fn new(mut seconds: Vec<f64>) -> Result<Self> {
        if seconds.is_empty() || !seconds.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(Error::new("times must be one or more finite numbers above 0"));
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Self(seconds))
    }

    /// The times in ascending order.
    pub fn seconds(&self) -> &[f64] {
        &self.0
    }

    /// The time that a part `q` of all times does not exceed, interpolated between neighbours.
    pub fn quantile(&self, q: f64) -> f64 {
        let at = q.clamp(0.0, 1.0) * (self.0.len() - 1) as f64;
        let (low, part) = (at.floor() as usize, at.fract());
        let high = (low + 1).min(self.0.len() - 1);
        self.0[low] * (1.0 - part) + self.0[high] * part
    }

    /// The middle time.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The 20 % and the 80 % quantile.
    pub fn spread(&self) -> [f64; 2] {
        [self.quantile(0.2), self.quantile(0.8)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let samples = Samples::new(vec![5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!((samples.median(), samples.quantile(0.0), samples.quantile(1.0)), (3.0, 1.0, 5.0));
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(samples.spread()[0], 1.8) && close(samples.spread()[1], 4.2));
        assert_eq!(Samples::new(vec![2.0]).unwrap().spread(), [2.0, 2.0]);
        for bad in [vec![], vec![0.0], vec![1.0, f64::NAN]] {
            assert!(Samples::new(bad).is_err());
        }
    }
}
