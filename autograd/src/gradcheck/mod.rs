//! Checks of gradients in f64: of an op ([`check_op`]), of a number recorded as a graph of ops ([`check_graph`]), or of any
//! function whose gradient somebody claims to know ([`check_function`]).
//!
//! # What is compared
//!
//! Random weights w make a number of the result: `f(x) = Σ w ⊙ op(x)`, whose gradient the VJP for `d_y = w` claims to know.
//! The numeric side is central differences
//!
//! - **along a random direction** at any size: two evaluations for each of four step sizes, whatever the number of entries;
//! - **entry by entry** for inputs of up to [`Options::entrywise`] elements.
//!
//! # What is not claimed
//!
//! Four step sizes tell what a numeric derivative is worth. The check certifies nothing at a kink, where the function is too
//! rough or not finite, and where a gradient is smaller than what rounding leaves of the differences: the [`Report`] lists every
//! such number as [`NotChecked`] with its [`Reason`]. It is not a pass. To rely on a check, ask whether
//! [`Report::certified`] has the input.
//!
//! # An op of one's own
//!
//! `examples/own_op` is a worked example. The crate `gradtest` has what property-based tests need beyond this module: shapes and
//! values that shrink, random graphs, and faults planted to see whether the check finds them.

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
