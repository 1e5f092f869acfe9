//! Masked diffusion: everything about MDLM (Sahoo et al. 2024, arXiv 2406.07524), SEDD with an absorbing state (Lou et al.
//! 2024, 2310.16834) and MD4 (Shi et al. 2024, 2406.04329) that needs no network.
//!
//! Time t runs from 0, the text, to 1, masks only. At time t every maskable position is a mask with probability a(t),
//! independently. A [`Network`] reads the rest and gives a distribution for every masked position. All three models have
//! the bound
//!
//! ```text
//! NELBO(x) = ∫₀¹ dt a'(t)/a(t) · E_S Σ_{i∈S} cost_i ≥ −log p(x)        S: the masked positions
//! ```
//!
//! and differ in the cost, in what the network is told of t, and in the [`Schedule`] a(t): see [`Method`].

mod estimate;
mod exact;
mod fill;
mod lengths;
mod masks;
mod method;
mod network;
mod reveal;
mod rows;
mod schedule;
#[cfg(test)]
mod tests;

mod text;

pub use estimate::{Estimate, Estimator, MOST_ORDERED, Value};
pub use exact::{Exact, MOST_EXACT, integral};
pub use fill::{fill, write};
pub use lengths::{COUNTED, Lengths};
pub use masks::{MaskedBatch, Masker};
pub use method::{Cost, MD4, MDLM, METHODS, Method, SEDD};
pub use network::{Network, Predictor, Seen, Shape, TokenCost};
pub use reveal::{Grid, Reveal, Revealer, by_grid};
pub use schedule::{Schedule, Told};
pub use text::Text;

/// Random-number sites, "DIF0" and on, one for each use.
const SITE: u32 = 0x4449_4630;
