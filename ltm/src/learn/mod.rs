//! Dual-rate learning (Kong et al. 2025, Algorithm 1): latents of every text by gradient steps on a Gaussian posterior, the
//! decoder slowly from the final posterior.

mod batch;
mod fast;
mod score;
mod slow;

pub use batch::{Batch, Inputs};
pub use fast::{WeightGradients, Fast, FastOptions, Latents};
pub use score::{Score, Scores};
pub use slow::{Slow, SlowReport};
