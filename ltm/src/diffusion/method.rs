use super::{Grid, TokenCost, Told};

/// What a masked token costs before weighting, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// −log p.
    LogP,
    /// −log p + (Z − 1 − log Z): SEDD's score entropy, over weight and factor. Z is the sum of the scores exp(logit)/V, and
    /// the second part the price, at least 0, of scores that do not sum to 1.
    ScoreEntropy,
}

impl Cost {
    /// The cost of a token.
    pub fn of(self, token: TokenCost) -> f64 {
        match self {
            Self::LogP => token.nll,
            Self::ScoreEntropy => token.nll + token.price(),
        }
    }
}

/// One of the three models, by what sets it apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// What its network is told of the time.
    pub told: Told,
    /// What a masked token costs.
    pub cost: Cost,
    /// How its paper spaces the steps of generation.
    pub grid: Grid,
}

/// Sahoo et al. 2024.
pub const MDLM: Method = Method { name: "mdlm", told: Told::Nothing, cost: Cost::LogP, grid: Grid::Uniform };

/// Lou et al. 2024, with an absorbing state. The paper calls the linear schedule, the default, log-linear, after its σ = −log(1 − t).
pub const SEDD: Method = Method { name: "sedd", told: Told::Sigma, cost: Cost::ScoreEntropy, grid: Grid::Uniform };

/// Shi et al. 2024.
pub const MD4: Method = Method { name: "md4", told: Told::Time, cost: Cost::LogP, grid: Grid::Cosine };

/// All three. The papers draw the times of a batch differently: MDLM one in every stratum, SEDD independently, MD4 by one
/// shared number. Here all three take MD4's way, see [`Masker`](super::Masker).
pub const METHODS: [Method; 3] = [MDLM, SEDD, MD4];
