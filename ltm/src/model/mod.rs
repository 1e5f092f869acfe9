//! The decoder p(x|z): parameters, and the graph that the engine records (Kong et al. 2025, arXiv 2502.01567, section 2).

mod decoder;
pub mod oracle;
mod params;

pub use decoder::{Decoder, Positions};
pub use params::{Param, Params, Part};
