//! The check of an op at random points.

use crate::point::{Point, drawn, points, runner};
use autograd::gradcheck::{Failure, Report};
use kernels::case::Case;
use proptest::strategy::Strategy;
use proptest::test_runner::{TestCaseError, TestError};
use std::cell::RefCell;

/// Makes a check of 256 values of a strategy; of the smallest value that fails it, `show` says what it is.
pub(crate) fn check_all<S: Strategy>(
    values: S,
    check: impl Fn(&S::Value) -> Result<Report, Failure>,
    show: impl Fn(&S::Value) -> String,
) -> Result<Vec<Report>, String> {
    let reports = RefCell::new(Vec::new());
    let result = runner().run(&values, |value| {
        let report = check(&value).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        reports.borrow_mut().push(report);
        Ok(())
    });
    match result {
        Ok(()) => Ok(reports.into_inner()),
        Err(TestError::Abort(reason)) => Err(reason.to_string()),
        Err(TestError::Fail(reason, value)) => Err(format!("{}\n{}", reason.message(), show(&value))),
    }
}

/// Checks every gradient of an op for every subset of wanted inputs at 256 random points
/// ([`check_op`](autograd::gradcheck::check_op)).
///
/// # Errors
/// The wrong gradient and the smallest case that shows it; or an input that none of the points could certify.
pub fn gradients(cases: impl Strategy<Value = Case>) -> Result<Vec<Report>, String> {
    let reports = check_all(points(&cases), Point::check, |point| format!("smallest case: {point}"))?;
    let typical = drawn(points(cases)).next().ok_or("no cases were asked for")?;
    let certified = |input: &str| reports.iter().any(|report| report.certified.iter().any(|name| name == input));
    match typical.inputs().find(|(_, input)| !certified(input)) {
        Some((_, input)) => Err(format!("no gradient of {input} could be certified at any point")),
        None => Ok(reports),
    }
}

/// The first failure at the points of [`gradients`], as it is found: it does not shrink.
pub fn first_failure(cases: impl Strategy<Value = Case>) -> Option<Failure> {
    drawn(points(cases)).find_map(|point| point.check().err())
}
