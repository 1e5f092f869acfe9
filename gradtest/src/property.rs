//! The check of an op at random points.

use crate::point::{drawn, points, runner};
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

impl From<Report> for Summary {
    fn from(report: Report) -> Self {
        Self {
            cases: 1,
            checked: report.checked,
            not_checked: report.not_checked.len(),
            worst: report.worst,
            certified: report.certified.into_iter().map(|input| (input, 1)).collect(),
        }
    }
}

impl Summary {
    /// Adds what held over other cases.
    pub(crate) fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.checked += other.checked;
        self.not_checked += other.not_checked;
        self.worst = self.worst.max(other.worst);
        for (input, times) in other.certified {
            *self.certified.entry(input).or_default() += times;
        }
    }
}

/// Checks every gradient of an op for every subset of wanted inputs at 256 random points
/// ([`check_op`](autograd::gradcheck::check_op)).
///
/// # Errors
/// The wrong gradient and the smallest case that shows it; or an input that none of the points could certify.
pub fn gradients(cases: impl Strategy<Value = Case>) -> Result<Summary, String> {
    let summary = RefCell::new(Summary::default());
    let result = runner().run(&points(cases), |point| {
        let mut summary = summary.borrow_mut();
        for (_, input) in point.inputs() {
            summary.certified.entry(input.to_string()).or_default();
        }
        let report = point.check().map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        summary.add(report.into());
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => return Err(reason.to_string()),
        Err(TestError::Fail(reason, point)) => return Err(format!("{}\nsmallest case: {point}", reason.message())),
    }
    let summary = summary.into_inner();
    match summary.certified.iter().find(|(_, times)| **times == 0) {
        Some((input, _)) => Err(format!("no gradient of {input} could be certified at any point")),
        None => Ok(summary),
    }
}

/// The first failure at the points of [`gradients`], as it is found: it does not shrink.
pub fn first_failure(cases: impl Strategy<Value = Case>) -> Option<Failure> {
    drawn(points(cases)).find_map(|point| point.check().err())
}
