//! The check of an op at random points.

use crate::point::{Point, drawn, points, runner};
use autograd::gradcheck::{Failure, Report};
use kernels::case::Case;
use proptest::strategy::Strategy;
use proptest::test_runner::{TestCaseError, TestError};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What held over all random cases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Random cases.
    pub cases: usize,
    /// Comparisons with numeric derivatives that were made and held.
    pub checked: usize,
    /// Comparisons that could certify nothing.
    pub not_checked: usize,
    /// The worst relative difference among those checked.
    pub worst: f64,
    /// In how many random cases each input was certified.
    pub certified: BTreeMap<String, usize>,
}

impl Summary {
    fn add(&mut self, report: Report) {
        self.cases += 1;
        self.checked += report.checked;
        self.not_checked += report.not_checked.len();
        self.worst = self.worst.max(report.worst);
        for input in report.certified {
            *self.certified.entry(input).or_default() += 1;
        }
    }
}

/// Makes a check of 256 values of a strategy; of the smallest value that fails it, `show` says what it is.
pub(crate) fn check_all<S: Strategy>(
    values: S,
    check: impl Fn(&S::Value) -> Result<Report, Failure>,
    show: impl Fn(&S::Value) -> String,
) -> Result<Summary, String> {
    let summary = RefCell::new(Summary::default());
    let result = runner().run(&values, |value| {
        let report = check(&value).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        summary.borrow_mut().add(report);
        Ok(())
    });
    match result {
        Ok(()) => Ok(summary.into_inner()),
        Err(TestError::Abort(reason)) => Err(reason.to_string()),
        Err(TestError::Fail(reason, value)) => Err(format!("{}\n{}", reason.message(), show(&value))),
    }
}

/// Checks every gradient of an op for every subset of wanted inputs at 256 random points
/// ([`check_op`](autograd::gradcheck::check_op)).
///
/// # Errors
/// The wrong gradient and the smallest case that shows it; or an input that none of the points could certify.
pub fn gradients(cases: impl Strategy<Value = Case>) -> Result<Summary, String> {
    let typical = drawn(points(&cases)).next().ok_or("no cases were asked for")?;
    let summary = check_all(points(cases), Point::check, |point| format!("smallest case: {point}"))?;
    match typical.inputs().find(|(_, input)| !summary.certified.contains_key(*input)) {
        Some((_, input)) => Err(format!("no gradient of {input} could be certified at any point")),
        None => Ok(summary),
    }
}

/// The first failure at the points of [`gradients`], as it is found: it does not shrink.
pub fn first_failure(cases: impl Strategy<Value = Case>) -> Option<Failure> {
    drawn(points(cases)).find_map(|point| point.check().err())
}
