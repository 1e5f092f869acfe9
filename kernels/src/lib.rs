//! Every op has one folder (its room) with the trait, CPU and CUDA code, cost, cases and tests, and one line in
//! [`registry`].

#![deny(unsafe_code)]

pub mod adamw;
pub mod add;
mod attention;
pub mod bias;
pub mod case;
pub mod cast;
mod check;
mod cost;
pub mod cross_attention;
pub mod cross_entropy;
pub mod embedding;
pub mod gaussian;
pub mod gelu;
mod lanes;
pub mod latents;
mod launch;
pub mod layernorm;
pub mod matmul;
pub mod muon;
mod product;
pub mod registry;
pub mod ring_attention;
pub mod rmsnorm;
pub mod rope;
pub mod slice;
pub mod sum;
pub mod swiglu;
#[cfg(test)]
mod testing;
pub mod window_attention;

pub use registry::widest_head;
pub use ring_attention::longest_window;
