//! The sizes from which ops build their cases, and the parts of a case ([`engine::case`]).

pub use engine::case::{Case, Fill, Input};

/// The sizes from which ops build their cases. Tests use small odd ones, benchmarks those of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Samples B.
    pub batch: usize,
    /// Tokens per sample N.
    pub tokens: usize,
    /// Attention heads H.
    pub heads: usize,
    /// Width of a head D, even; the model's width is d = H·D.
    pub head_dim: usize,
    /// Attention window k: token i sees j in [i−k+1, i].
    pub window: usize,
    /// Latent vectors per layer K.
    pub latents: usize,
    /// Hidden size of the SwiGLU.
    pub ffn: usize,
    /// Vocabulary V.
    pub vocab: usize,
}

impl Sizes {
    /// The model's width d.
    pub fn dim(&self) -> usize {
        self.heads * self.head_dim
    }
}
