//! Matrix products.

pub mod gemm;
mod microkernel;
mod pack;
mod tiles;
