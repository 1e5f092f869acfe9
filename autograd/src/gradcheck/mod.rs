//! Checks of gradients, in f64: of an op ([`check_op`]), of a number recorded as a graph of ops ([`check_graph`]), or of any
//! function whose gradient somebody claims to know ([`check_function`]). For ops of this project and of anybody else.
//!
//! # What is compared
//!
//! A result is made a number by random weights w: `f(x) = Σ w ⊙ op(x)`, whose gradient the VJP for `d_y = w` claims to know.
//! The numeric side is central differences
//!
//! - **along a random direction** at any size: two evaluations for each of four step sizes, whatever the number of entries;
//! - **entry by entry** for inputs of up to [`Options::entrywise`] elements.
//!
//! Where [`check_op`] knows the op, it also holds gradients that are added to a buffer, every subset of wanted inputs,
//! the fused pass and passed-through gradients to the gradients that were checked so, and tests *forward over reverse*: the
//! derivative of the VJP's gradient along u, projected onto v, must be that along v, projected onto u. That takes a fixed
//! number of passes too.
//!
//! # What is not claimed
//!
//! Four step sizes tell what a numeric derivative is worth. At a kink, where the function is too rough or not finite, and
//! where a gradient is smaller than what rounding leaves of the differences, nothing is certified: the [`Report`] lists every
//! such number as [`NotChecked`] with its [`Reason`]. It is not a pass. Who wants to rely on a check asks whether
//! [`Report::certified`] has the input.
//!
//! # An op of one's own
//!
//! ```
//! use autograd::gradcheck::{Failure, Options, check_op};
//! use engine::{Buffer, Context, Cost, DType, Op, Output, Pass, Reads, Result, Spec, Want};
//!
//! /// y = x³, with a gradient that may be wrong.
//! #[derive(Debug)]
//! struct Cube {
//!     factor: f64,
//! }
//!
//! impl Op for Cube {
//!     fn name(&self) -> &'static str {
//!         "cube"
//!     }
//!     fn arguments(&self) -> &'static [&'static str] {
//!         &["x"]
//!     }
//!     fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
//!         Ok(vec![Output { name: "y", spec: ins[0] }])
//!     }
//!     fn differentiable(&self, _: usize) -> bool {
//!         true
//!     }
//!     fn reads(&self, _: &[Want]) -> Reads {
//!         Reads::of(&[0], &[])
//!     }
//!     fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
//!         let x = ins[0].as_slice::<f64>();
//!         outs[0].as_mut_slice::<f64>().iter_mut().zip(x).for_each(|(y, x)| *y = x.powi(3));
//!     }
//!     fn vjp(&self, _: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
//!         if !wants[0].is_wanted() {
//!             return;
//!         }
//!         let (x, d_y) = (ins[0].as_slice::<f64>(), d_y.as_slice::<f64>());
//!         for (i, d_x) in d[0].as_mut_slice::<f64>().iter_mut().enumerate() {
//!             let before = if wants[0] == Want::Add { *d_x } else { 0.0 };
//!             *d_x = before + self.factor * x[i] * x[i] * d_y[i];
//!         }
//!     }
//!     fn cost(&self, _: &[Spec], _: Pass) -> Cost {
//!         Cost::default()
//!     }
//! }
//!
//! let x = Buffer::from_f64(DType::F64, &[3], &[0.5, -2.0, 0.0]);
//! let report = check_op(&Cube { factor: 3.0 }, &[x.clone()], &Options::default())?;
//! assert!(report.worst < 1e-6 && report.certified == ["x"]);
//! // The gradient at 0 is 0: too small to certify, and said to be.
//! assert_eq!(report.not_checked[0].to_string(), "gradient of x[2]: not checked, too small to certify");
//!
//! let Err(Failure::Wrong(wrong)) = check_op(&Cube { factor: 2.0 }, &[x], &Options::default()) else { panic!() };
//! assert_eq!((&wrong.op[..], &wrong.input[..]), ("cube", "x"));
//! assert!((wrong.claimed / wrong.expected - 2.0 / 3.0).abs() < 1e-6, "{wrong}");
//! # Ok::<(), Failure>(())
//! ```
//!
//! What a property-based test needs beyond that (shapes and values that shrink, random graphs, faults planted to see whether
//! the check finds them) is in the crate `gradtest`, so that nothing here depends on a testing library.

mod bench;
mod function;
mod numeric;
mod op;
mod projection;
mod report;
#[cfg(test)]
mod tests;

pub use bench::Bench;
pub use function::{Claim, check_function, check_graph};
pub use op::check_op;
pub use projection::Projection;
pub use report::{Check, Failure, NotChecked, Place, Reason, Report, Wrong};

/// How strict to be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Seeds the projection of the result and the directions.
    pub seed: u64,
    /// Step of the stencil for entries of size one.
    pub step: f64,
    /// Largest accepted relative difference.
    pub tolerance: f64,
    /// Inputs up to this many elements are checked entry by entry.
    pub entrywise: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, step: 1e-3, tolerance: 1e-6, entrywise: 48 }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
