//! Checks gradients in f64: of an op ([`check_op`]), of a scalar recorded as a graph of ops ([`check_graph`]), or of
//! any Rust function with a claimed gradient ([`check_function`]).
//!
//! # What is compared
//!
//! Random weights w reduce the result to a scalar: `f(x) = Σ w ⊙ op(x)`. The VJP for `d_y = w` must give its gradient.
//! The numeric side is central differences
//!
//! - **along a random direction** at any size: at several step sizes, for any number of entries. This is a Jacobian-vector
//!   product by differences, against the transpose of the VJP;
//! - **entry by entry** for inputs of up to [`Options::entrywise`] elements.
//!
//! A number of the gradient is wrong if it differs by more than a millionth of itself and what the differences leave
//! open, which is at most 10⁻⁵ more. `gradtest` plants errors of 1.2 millionths, which are found.
//!
//! # What is not claimed
//!
//! Several step sizes show how accurate a numeric derivative is. The check certifies nothing at a kink, where the
//! function is too rough or not finite, or where a gradient is less than a million times the rounding error of the
//! differences, or less than a millionth of the input's largest. Rounding of the gradient itself is not known to the
//! check: where large numbers cancel in a long graph, a right gradient can be called wrong. The [`Report`] lists every
//! such number as [`NotChecked`] with its [`Reason`]; it does not count as passed. To rely on a check, make sure that
//! [`Report::certified`] lists the input.
//!
//! # Your own op
//!
//! The example `own_op` is a worked one. The crate `gradtest` adds property-based tests: shapes and values that
//! shrink, random graphs, and planted faults that the check must find.

mod function;
mod numeric;
mod op;
mod projection;
mod report;
#[cfg(test)]
mod tests;

use engine::rng::Stream;

pub use function::{Claim, check_function, check_graph};
pub use op::check_op;
pub use projection::Projection;
pub use report::{Check, Failure, NotChecked, Place, Reason, Report, Wrong};

/// What to check, and where.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Seeds the projection of the result and the directions.
    pub seed: u64,
    /// Inputs up to this many elements are checked entry by entry.
    pub entrywise: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, entrywise: 48 }
    }
}

/// Normal random numbers.
fn normal(seed: u64, site: u32, len: usize) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(seed, site).fill_normal(0, &mut values, |x| x);
    values
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The first number whose bits differ.
fn first_difference(got: &[f64], expected: &[f64]) -> Option<report::Worst> {
    let j = got.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits())?;
    Some((Place::Entry(j), got[j], expected[j]))
}
