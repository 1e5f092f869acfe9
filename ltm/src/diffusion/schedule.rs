use crate::model::TimeEmbedding;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_PI_2;
use std::fmt;
use std::str::FromStr;

/// The probability a(t) that a maskable position is masked at time t: a(0) = 0, a(1) = 1, and a grows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Schedule {
    /// a = t.
    Linear,
    /// a = sin(πt/2).
    Cosine,
    /// a = t^w, w above 0.
    Poly(f64),
}

impl Schedule {
    /// a(t).
    pub fn masked(self, t: f64) -> f64 {
        match self {
            Self::Linear => t,
            // The sine of the rounded π/2 is 1, that of 0 is 0.
            Self::Cosine => (FRAC_PI_2 * t).sin(),
            Self::Poly(w) => t.powf(w),
        }
    }

    /// a'(t)/a(t), the weight of a masked token's cost, for t in (0, 1].
    pub fn weight(self, t: f64) -> f64 {
        match self {
            Self::Linear => t.recip(),
            Self::Cosine => FRAC_PI_2 / (FRAC_PI_2 * t).tan(),
            Self::Poly(w) => w / t,
        }
    }

    /// The time t with a(t) = `a`.
    pub fn time(self, a: f64) -> f64 {
        match self {
            Self::Linear => a,
            Self::Cosine => a.asin() / FRAC_PI_2,
            Self::Poly(w) => a.powf(w.recip()),
        }
    }

    /// The probability that a position which is masked at time `t` is revealed by the earlier time `s`: (a(t) − a(s))/a(t).
    pub fn revealed(self, t: f64, s: f64) -> f64 {
        (self.masked(t) - self.masked(s)) / self.masked(t)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear => f.write_str("linear"),
            Self::Cosine => f.write_str("cosine"),
            Self::Poly(w) => write!(f, "poly{w}"),
        }
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let power = || text.strip_prefix("poly")?.parse().ok().filter(|&w: &f64| w > 0.0 && w.is_finite());
        match text {
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            _ => power().map(Self::Poly).ok_or_else(|| {
                Error::usage(format!(
                    "there is no schedule {text:?}: choose linear, cosine, or poly and a power, e.g. poly2"
                ))
            }),
        }
    }
}

impl TryFrom<String> for Schedule {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.to_string()
    }
}

/// What the network is told of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Nothing: the bound then does not depend on the schedule (MDLM).
    #[serde(rename = "none")]
    Nothing,
    /// τ = σ(t) = −log(1 − (1−ε)t), ε = 10⁻³ (SEDD).
    #[serde(rename = "sigma")]
    Sigma,
    /// τ = 1000·t (MD4).
    #[serde(rename = "t")]
    Time,
}

/// Keeps σ finite at t = 1. Only the network's input and the protocol `paper` know of it; masks and weights do not.
pub(super) const EPSILON: f64 = 1e-3;

impl Told {
    /// How a network of width `dim` is told it.
    pub fn embedding(self, dim: usize) -> Option<TimeEmbedding> {
        (self != Self::Nothing).then(|| TimeEmbedding::of(dim))
    }

    /// The number τ that the network is told at time `t`.
    pub fn tau(self, t: f64) -> Option<f64> {
        match self {
            Self::Nothing => None,
            Self::Sigma => Some(-(-(1.0 - EPSILON) * t).ln_1p()),
            Self::Time => Some(1000.0 * t),
        }
    }
}
