//! One op, one room: contract, CPU and CUDA code, cost, cases and tests in one folder, plus one line in [`registry`].
//!
//! As a rule a plan calls ops. By hand it goes so:
//!
//! ```
//! use engine::{Buffer, Context, Device, Op, Want};
//! use kernels::rmsnorm::RmsNorm;
//!
//! let op = RmsNorm { eps: 0.0 };
//! let x = Buffer::from_slice(&[1, 2], &[3.0f64, 4.0]);
//! let gain = Buffer::from_slice(&[2], &[1.0f64, 1.0]);
//!
//! // The result, and the residuals that its gradient needs.
//! let outputs = op.infer(&[x.spec(), gain.spec()])?;
//! let mut outs: Vec<Buffer> = outputs.iter().map(|o| Buffer::new(o.spec)).collect();
//! let mut cx = Context { device: &Device::Cpu, scratch: &mut Buffer::with_capacity(1 << 16) };
//! op.forward(&mut cx, &[&x, &gain], &mut outs);
//! let y = outs[0].to_f64();
//! assert!((y[0] * y[0] + y[1] * y[1] - 2.0).abs() < 1e-12);
//!
//! // The gradient of the gain alone, for d_y = 1.
//! let d_y = Buffer::from_slice(&[1, 2], &[1.0f64, 1.0]);
//! let mut d = [Buffer::empty(), Buffer::new(gain.spec())];
//! op.vjp(&mut cx, &[Want::Skip, Want::Write], &[&x, &gain], &[&outs[0], &outs[1]], &d_y, &mut d);
//! assert_eq!(d[1].to_f64(), y);
//! # Ok::<(), engine::Error>(())
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
