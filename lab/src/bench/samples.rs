use engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// Times of one piece of work in seconds per call, taken in one or more passes over all the work. On a shared machine
/// neighbours in time resemble each other; passes do so less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<f64>>", into = "Vec<Vec<f64>>")]
pub struct Samples {
    /// Each in ascending order.
    passes: Vec<Vec<f64>>,
    /// All of them in ascending order.
    all: Vec<f64>,
}

impl Samples {
    /// One pass, from times in any order.
    ///
    /// # Errors
    /// If there is none, or one that is no time.
    pub fn new(seconds: Vec<f64>) -> Result<Self> {
        Self::of_passes(vec![seconds])
    }

    /// Several passes, each from times in any order.
    ///
    /// # Errors
    /// If there is no pass, one without times, or a time that is none.
    pub fn of_passes(mut passes: Vec<Vec<f64>>) -> Result<Self> {
        let is_time = |s: &f64| s.is_finite() && *s > 0.0;
        if passes.is_empty() || passes.iter().any(Vec::is_empty) || !passes.iter().flatten().all(is_time) {
            return Err(Error::new("times must be one or more finite numbers above 0"));
        }
        passes.iter_mut().for_each(|pass| pass.sort_by(f64::total_cmp));
        let mut all = passes.concat();
        all.sort_by(f64::total_cmp);
        Ok(Self { passes, all })
    }

    /// The times of all passes in ascending order.
    pub fn seconds(&self) -> &[f64] {
        &self.all
    }

    /// The times of every pass, each in ascending order.
    pub fn passes(&self) -> &[Vec<f64>] {
        &self.passes
    }

    /// The middle time of every pass.
    pub fn medians(&self) -> Vec<f64> {
        self.passes.iter().map(|pass| quantile(pass, 0.5)).collect()
    }

    /// The time that a part `q` of all times does not exceed, interpolated between neighbours.
    pub fn quantile(&self, q: f64) -> f64 {
        quantile(&self.all, q)
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

impl TryFrom<Vec<Vec<f64>>> for Samples {
    type Error = Error;

    fn try_from(passes: Vec<Vec<f64>>) -> Result<Self> {
        Self::of_passes(passes)
    }
}

impl From<Samples> for Vec<Vec<f64>> {
    fn from(samples: Samples) -> Self {
        samples.passes
    }
}

/// Of values in ascending order.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] * (1.0 - part) + sorted[high] * part
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
        let passes = Samples::of_passes(vec![vec![9.0, 1.0, 2.0], vec![4.0, 3.0]]).unwrap();
        assert_eq!((passes.seconds(), passes.medians()), (&[1.0, 2.0, 3.0, 4.0, 9.0][..], vec![2.0, 3.5]));
        for bad in [vec![], vec![vec![]], vec![vec![1.0], vec![]], vec![vec![0.0]], vec![vec![1.0, f64::NAN]]] {
            assert!(Samples::of_passes(bad).is_err());
        }
    }
}
