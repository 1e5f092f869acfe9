//! One op, one room: contract, CPU and CUDA code, cost, cases and tests in one folder, plus one line in [`registry`].
//!
//! As a rule a plan calls ops. By hand it goes so:
//!
//! ```
//! use engine::{Bench, Buffer, Device, Want};
//! use kernels::rmsnorm::RmsNorm;
//!
//! let rmsnorm = Bench { device: &Device::Cpu, op: &RmsNorm { eps: 0.0 } };
//! let ins = [Buffer::from_slice(&[1, 2], &[3.0f64, 4.0]), Buffer::from_slice(&[2], &[1.0f64, 1.0])];
//!
//! // The result, and the residuals that its gradient needs.
//! let outs = rmsnorm.forward(&ins);
//! let y = outs[0].to_f64();
//! assert!((y[0] * y[0] + y[1] * y[1] - 2.0).abs() < 1e-12);
//!
//! // The gradient of the gain alone, for d_y = 1.
//! let d_y = Buffer::from_slice(&[1, 2], &[1.0f64, 1.0]);
//! let d = rmsnorm.vjp(&[Want::Skip, Want::Write], &ins, &outs, &d_y, &[]);
//! assert_eq!(d[1].to_f64(), y);
//! ```

#![deny(unsafe_code)]

pub mod adamw;
pub mod add;
mod attention;
pub mod bias;
pub mod case;
pub mod cast;
mod check;
mod cost;
pub mod cross_attention;
pub mod cross_entropy;
pub mod embedding;
pub mod gaussian;
pub mod gelu;
mod lanes;
pub mod latents;
mod launch;
pub mod layernorm;
pub mod matmul;
mod product;
pub mod registry;
pub mod ring_attention;
pub mod rmsnorm;
pub mod rope;
pub mod slice;
pub mod sum;
pub mod swiglu;
#[cfg(test)]
mod testing;
pub mod window_attention;

pub use registry::widest_head;
pub use ring_attention::longest_window;
