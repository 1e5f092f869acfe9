//! Matrix products.

pub mod gemm;
mod microkernel;
mod pack;
pub(crate) mod tiles;
