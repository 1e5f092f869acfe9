//! The checks of [`at`](crate::at) at 256 random points each.

use crate::at;
use crate::function::Tensor;
use crate::point::{Point, everywhere};
use engine::case::Case;
use proptest::strategy::Strategy;

/// Checks the result against a reference: [`at::forward`].
///
/// # Errors
/// The first number that differs, and the smallest case that shows it. The printed test calls a function `reference`.
pub fn forward(cases: impl Strategy<Value = Case>, reference: impl Fn(&[Tensor]) -> Vec<f64>) -> at::Checked {
    let check = |point: &Point| at::forward(&*point.case.op, &point.buffers(), &reference);
    everywhere(cases, check, |_| "gradtest::at::forward(&op, &ins, reference)".into()).map(drop)
}

/// Checks a claimed Jacobian-vector product: [`at::jvp`].
///
/// # Errors
/// The wrong product, and the smallest case that shows it. The printed test calls a function `claimed`.
pub fn jvp(cases: impl Strategy<Value = Case>, claimed: impl Fn(&[Tensor], &[Tensor]) -> Vec<f64>) -> at::Checked {
    let check = |point: &Point| at::jvp(&*point.case.op, &point.buffers(), point.draw.seed, &claimed);
    everywhere(cases, check, |seed| format!("gradtest::at::jvp(&op, &ins, {seed}, claimed)")).map(drop)
}

/// Checks that second derivatives are symmetric: [`at::second_order`]. The op's gradient must be differentiable at most
/// points.
///
/// # Errors
/// The products that differ, and the smallest case that shows it.
pub fn second_order(cases: impl Strategy<Value = Case>) -> at::Checked {
    let check = |point: &Point| at::second_order(&*point.case.op, &point.buffers(), point.draw.seed);
    everywhere(cases, check, |seed| format!("gradtest::at::second_order(&op, &ins, {seed})")).map(drop)
}

/// Checks that the same call gives the same bits: [`at::deterministic`].
///
/// # Errors
/// What differs, and the smallest case that shows it.
pub fn deterministic(cases: impl Strategy<Value = Case>) -> at::Checked {
    let check = |point: &Point| at::deterministic(&*point.case.op, &point.buffers());
    everywhere(cases, check, |_| "gradtest::at::deterministic(&op, &ins)".into()).map(drop)
}

/// Checks that samples do not depend on each other: [`at::independent_of_batch`]. `batched` are the numbers of the
/// inputs whose first axis counts samples.
///
/// # Errors
/// The first sample that depends on others, and the smallest case that shows it.
pub fn independent_of_batch(cases: impl Strategy<Value = Case>, batched: &[usize]) -> at::Checked {
    let check = |point: &Point| at::independent_of_batch(&*point.case.op, &point.buffers(), batched);
    let call = |_| format!("gradtest::at::independent_of_batch(&op, &ins, &{batched:?})");
    everywhere(cases, check, call).map(drop)
}

/// Checks that no NaN is hidden: [`at::nan_stays`].
///
/// # Errors
/// The number that hides it, and the smallest case that shows it.
pub fn nan_stays(cases: impl Strategy<Value = Case>) -> at::Checked {
    let check = |point: &Point| at::nan_stays(&*point.case.op, &point.buffers());
    everywhere(cases, check, |_| "gradtest::at::nan_stays(&op, &ins)".into()).map(drop)
}
