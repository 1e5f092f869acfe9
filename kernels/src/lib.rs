//! One op, one room: contract, CPU and CUDA code, cost, cases and tests in one folder, plus one line in [`registry`].

pub mod adamw;
pub mod add;
pub mod case;
mod check;
mod cost;
pub mod embedding;
pub mod gaussian;
mod lanes;
pub mod latents;
pub mod matmul;
pub mod registry;
pub mod rmsnorm;
pub mod slice;
pub mod sum;
pub mod swiglu;
#[cfg(test)]
mod testing;
