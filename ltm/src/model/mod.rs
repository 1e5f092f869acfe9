//! The decoder p(x|z): parameters, and the graph that the engine records (Kong et al. 2025, arXiv 2502.01567, section 2). And the
//! denoiser of masked diffusion, which is the same decoder with attention in both directions.

mod decoder;
mod denoiser;
pub mod oracle;
mod params;

pub use decoder::{Decoder, Positions};
pub use denoiser::{Costs, Denoiser, MaskedText, MaskedTexts, TimeEmbedding, ffn_hidden};
pub use params::{Param, Params, Part};
