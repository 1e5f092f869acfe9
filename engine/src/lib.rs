//! The machinery under the kernels: shapes, buffers, devices, counter-based noise, SIMD, and the contract of an op.
//! It knows no op and no model.

mod dtype;
mod error;
pub mod rng;
mod shape;
pub mod simd;

pub use dtype::{DType, Element};
pub use error::{Error, ErrorKind, Result};
pub use shape::{Shape, Spec};
