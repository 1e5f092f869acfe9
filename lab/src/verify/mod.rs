//! Verifies a build on a machine: every op's cases against f64, on the CPU and on a GPU, and the numbers of a golden
//! file.

mod cases;
mod denoiser;
mod golden;
mod ops;
mod updates;

pub use cases::{Pass, errors, exact, passes};
pub use golden::{Comparison, FITTED_IN_BF16, golden, tolerance};
pub use ops::{LONG, MODEL_SIZES, OpReport, SIZES, WIDE, device, device_tolerance, ops, sizes};
pub use updates::{Script, scripts};
