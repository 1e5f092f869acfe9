//! How a user trusts a build: every op's cases against the f64 reference, and a golden file's numbers.

mod golden;
mod ops;

pub use golden::{Comparison, golden, tolerance};
pub use ops::{OpReport, ops};
