//! Property-based tests of gradients, for the ops of this project and for your own.
//!
//! `autograd::gradcheck` checks a gradient at one point. This crate draws the points: shapes, values including special
//! ones (zeros, equal entries, ties, huge and tiny magnitudes), subsets of wanted inputs, and whole random graphs of
//! ops. A failure shrinks to the smallest shapes and values.
//!
//! For your own op, write a strategy of [`Case`]s, its test inputs. One line then defines all tests of the op:
//!
//! ```
//! use gradtest::{Case, Fill, Input, Strategy, shapes};
//! use kernels::gelu::Gelu;
//!
//! fn cases() -> impl Strategy<Value = Case> {
//!     shapes(3, 6).prop_map(|dims| Case::new("any shape", Gelu, vec![Input::new(&dims, Fill::NORMAL)]))
//! }
//!
//! gradtest::property_tests!(gelu, cases());
//!
//! // Each test is also a function.
//! let reports = gradtest::gradients(cases())?;
//! assert_eq!(reports.len(), 256);
//! assert!(reports.iter().all(|report| report.worst < 1e-6));
//! # Ok::<(), String>(())
//! ```
//!
//! `examples/own_op` is the guide: an op outside the workspace, and how the tests find a mistake in its gradient.

#![forbid(unsafe_code)]

mod faults;
mod graphs;
mod point;
mod strategies;

pub use faults::{Change, Fault, planted_faults};
pub use graphs::random_graphs;
pub use kernels::case::{Case, Fill, Input};
pub use point::{first_failure, gradients};
pub use proptest::strategy::Strategy;
pub use strategies::{shapes, sizes};

/// Defines all property tests of an op: `property_tests!(name, cases)`, where `cases` is a strategy of [`Case`]s,
/// creates a module `name` with the tests
///
/// - `gradients`: checks every gradient, for every subset of up to six wanted inputs, at 256 random points;
/// - `random_graphs`: checks the op together with the registry's ops in 256 random graphs;
/// - `planted_faults`: plants faults into its gradient and requires that each is found.
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
        }
    };
}
