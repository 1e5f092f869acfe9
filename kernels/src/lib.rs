//! One op, one room: contract, CPU and CUDA code, cost, cases and tests in one folder, plus one line in [`registry`].

pub mod case;
mod check;
mod cost;
pub mod cross_attention;
pub mod matmul;
mod product;
pub mod registry;
pub mod ring_attention;
pub mod rope;
pub mod sum;
#[cfg(test)]
mod testing;
pub mod window_attention;
