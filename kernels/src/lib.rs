#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod adamw;
mod attention;
pub mod case;
pub mod cast;
mod check;
mod copy;
mod cost;
pub mod cross_attention;
pub mod cross_entropy;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod gaussian;
mod lanes;
pub mod latents;
mod launch;
pub mod layernorm;
pub mod matmul;
pub mod modulate;
pub mod muon;
pub mod permute;
mod product;
pub mod reduce;
pub mod registry;
pub mod reshape;
pub mod ring_attention;
pub mod rmsnorm;
pub mod rope;
pub mod self_attention;
pub mod sgd;
pub mod slice;
pub mod softmax;
pub mod swiglu;
#[cfg(test)]
mod testing;

pub use registry::widest_head;
pub use ring_attention::longest_window;
