//! Property-based tests of gradients, for functions in plain Rust, for ops of `engine`, and for tensors of other
//! libraries.
//!
//! The crate draws the points at which a gradient is checked: shapes, values including special ones (zeros, equal
//! entries, ties, huge and tiny magnitudes), subsets of wanted inputs, and random graphs. A failure shrinks to the
//! smallest shapes and values, and prints a regression test.
//!
//! ```
//! use gradtest::{Function, Input, Strategy, shapes};
//!
//! // y = x² in every number, and the claim that d_x = 2x ⊙ d_y.
//! fn square(factor: f64) -> Function {
//!     let value = |ins: &[gradtest::Tensor]| ins[0].data.iter().map(|x| x * x).collect();
//!     Function::new("square", &["x"], value, move |ins, d_y| {
//!         vec![ins[0].data.iter().zip(d_y).map(|(x, d_y)| factor * x * d_y).collect()]
//!     })
//! }
//!
//! // Up to three dimensions of size up to six; the numbers are normal.
//! let inputs = || shapes(3, 6).prop_map(|dims| vec![Input::normal(&dims)]);
//! let reports = gradtest::gradients(square(2.0).cases(inputs()))?;
//! assert_eq!(reports.len(), 256);
//!
//! let failure = gradtest::gradients(square(1.0).cases(inputs())).unwrap_err();
//! assert!(failure.starts_with("square: gradient of x[0] is "));
//! assert!(failure.contains("#[test]\nfn square_at_its_smallest_failure() {"));
//! # Ok::<(), String>(())
//! ```
//!
//! # What is drawn
//!
//! A strategy of [`Case`]s: a function or op, and an [`Input`] for each argument, with its shape and its [`Fill`]:
//! normal (the default), between two numbers, [`Fill::UNIT`], positive, integers, or given numbers. An op of `engine`
//! names the numbers for which it is defined in its contract ([`Op::domain`](engine::Op::domain)), and its cases keep
//! to them.
//!
//! # What is checked
//!
//! | Function | Checks | By default in [`all`] |
//! |---|---|---|
//! | [`gradients`] | the VJP against central differences, entry by entry and along a random direction, where it is the transpose of the Jacobian-vector product; every subset of wanted inputs, written and added | yes |
//! | [`random_graphs`] | the same within graphs, planned in different ways | yes |
//! | [`planted_faults`] | that eight kinds of mistakes would be found | yes |
//! | [`deterministic`] | two calls give the same bits | yes |
//! | [`forward`] | the result against a reference, also NaN and infinity | no |
//! | [`jvp`] | a claimed Jacobian-vector product against differences | no |
//! | [`second_order`] | second derivatives are symmetric | no |
//! | [`independent_of_batch`] | a sample's bits do not depend on the others | no |
//! | [`nan_stays`] | no NaN is hidden | no |
//!
//! `PROPTEST_CASES` changes the number of points from 256, and `PROPTEST_RNG_SEED` the points. Each check at one point
//! is in [`at`], and `check_op` is that of [`gradients`].
//!
//! The check accepts a relative error of one millionth ([`autograd::gradcheck`] says what else it accepts). At 256
//! points it finds one of 1.2 millionths in smooth functions; a test plants it.
//!
//! # Ops of `engine`
//!
//! `property_tests!(softmax, cases())` defines a test for each check of [`all`]. The example `own_op` is the guide: an op
//! outside the workspace, and how the tests find a mistake in its gradient. The example `candle` checks another library
//! ([`Foreign`]).

#![forbid(unsafe_code)]

pub mod at;
mod faults;
mod function;
mod graphs;
mod modes;
mod point;
mod small;
mod strategies;

/// What the regression tests of [`random_graphs`] need.
pub mod graph {
    pub use crate::small::Small;
    pub use autograd::gradcheck::{Options, Projection, check_graph};
    pub use autograd::{Graph, Phase, Store};
    pub use engine::{Buffer, Device, Shape};
}

pub use autograd::gradcheck::{Failure, Options, Report, check_op};
pub use engine::Buffer;
pub use engine::case::{Case, Fill, Input};
pub use faults::{Change, Fault, planted_faults};
pub use function::{Foreign, Function, Tensor};
pub use graphs::{random_graphs, random_graphs_with};
pub use modes::{deterministic, forward, independent_of_batch, jvp, nan_stays, second_order};
pub use point::{first_failure, gradients};
pub use proptest::strategy::Strategy;
pub use strategies::shapes;

/// [`gradients`], [`random_graphs`], [`planted_faults`] and [`deterministic`].
///
/// # Errors
/// The first failure.
pub fn all(cases: impl Strategy<Value = Case>) -> Result<(), String> {
    gradients(&cases)?;
    random_graphs(&cases)?;
    planted_faults(&cases)?;
    deterministic(&cases)
}

/// Defines the tests of [`all`], one by one: `property_tests!(name, cases)`, where `cases` is a strategy of [`Case`]s,
/// creates a module `name` with the tests
///
/// - `gradients`: checks every gradient, for every subset of up to six wanted inputs, at 256 random points;
/// - `random_graphs`: checks the op in 256 random graphs;
/// - `planted_faults`: plants faults into its gradient and requires that each is found;
/// - `deterministic`: calls it twice and compares the bits.
///
/// Use [`all`] where the strategy captures local variables.
#[macro_export]
macro_rules! property_tests {
    ($name:ident, $cases:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[test]
            fn gradients() {
                $crate::gradients($cases).unwrap_or_else(|e| panic!("{e}"));
            }

            #[test]
            fn random_graphs() {
                $crate::random_graphs($cases).unwrap_or_else(|e| panic!("{e}"));
            }

            #[test]
            fn planted_faults() {
                $crate::planted_faults($cases).unwrap_or_else(|e| panic!("{e}"));
            }

            #[test]
            fn deterministic() {
                $crate::deterministic($cases).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    };
}

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
