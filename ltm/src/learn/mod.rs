//! Dual-rate learning (Kong et al. 2025, Algorithm 1): latents of every text by gradient steps on a Gaussian posterior, the
//! decoder slowly from the final posterior.

mod fast;
mod inputs;
mod score;
mod slow;

pub use fast::{Fast, FastOptions, Latents, WeightGradients};
pub use inputs::Inputs;
pub use score::{Score, Scores};
pub use slow::Slow;
