//! How a user trusts a build and a machine: every op's cases against the f64 reference, on the CPU and on a GPU, and a golden
//! file's numbers.

mod cases;
mod device;
mod golden;
mod ops;
mod updates;

pub use cases::{Arithmetic, Pass, errors, passes};
pub use device::{DeviceReport, LONG, MODEL_SIZES, SIZES, WIDE, device, device_tolerance, sizes};
pub use golden::{Comparison, golden, tolerance};
pub use ops::{OpReport, ops, relative_error};
pub use updates::{Script, scripts};
