//! Property-based tests of gradients, for the ops of this project and for anybody's own.
//!
//! `autograd::gradcheck` checks a gradient at one point. This crate draws the points: sizes, values with special ones among
//! them (zeros, equal entries, ties, huge and tiny magnitudes), subsets of wanted inputs, and whole random graphs of ops. What
//! fails shrinks to the smallest shapes and values. It is a crate of its own so that the library does not depend on proptest.
//!
//! `examples/own_op` is the guide: an op from outside the workspace, and how a mistake in its gradient is found.
//!
//! One line makes all tests of an op, here of GELU; each test is a function too:
//!
//! ```
//! gradtest::property_tests!(gelu, kernels::gelu::cases);
//!
//! let summary = gradtest::gradients(kernels::gelu::cases)?;
//! assert_eq!(summary.by_op["gelu"].cases, 256);
//! assert!(summary.worst < 1e-6);
//! # Ok::<(), String>(())
//! ```

#![forbid(unsafe_code)]

pub mod faults;
pub mod graphs;
mod property;
pub mod strategies;

pub use property::{Cases, Summary, Tried, gradients, planted_faults, random_graphs};

/// Turns an op into its full set of property tests: `property_tests!(name, cases)`, where `cases` is a
/// [`Cases`] like those of the rooms of `kernels`, writes a module `name` with the tests
///
/// - `gradients`: every gradient for every subset of wanted inputs at 256 random points;
/// - `random_graphs`: the op among all others in 256 random graphs;
/// - `planted_faults`: faults planted into its gradient, each of which must be found.
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
                $crate::planted_faults($cases, &[]).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    };
}
