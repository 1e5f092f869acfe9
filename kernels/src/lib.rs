//! One op, one room: contract, CPU and CUDA code, cost, cases and tests in one folder, plus one line in [`registry`].

pub mod case;
mod check;
pub mod matmul;
pub mod registry;
pub mod sum;
