//! The check of an op at random points.

use crate::point::{drawn, points, runner};
use autograd::gradcheck::{Check, Failure, Report};
use kernels::case::Case;
use proptest::strategy::Strategy;
use proptest::test_runner::{TestCaseError, TestError};
use std::cell::{Cell, RefCell};
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
    pub fn add(&mut self, other: Self) {
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
/// ```
/// use gradtest::{Case, Fault, Fill, Input, Strategy, shapes};
/// use kernels::gelu::Gelu;
///
/// let right = shapes(3, 6).prop_map(|dims| Case::new("any shape", Gelu, vec![Input::new(&dims, Fill::NORMAL)]));
/// let wrong = right.prop_map(|case| Fault::Sign.plant(0, case));
/// let found = gradtest::gradients(wrong).unwrap_err();
/// assert!(found.starts_with("gelu: gradient of u[0] is "), "{found}");
/// // It shrinks to the smallest shape and the simplest number.
/// assert!(found.ends_with("\n  u f64[1] = [0.0]"), "{found}");
/// ```
///
/// # Errors
/// The wrong gradient and the smallest case that shows it; or an input that none of the points could certify.
pub fn gradients(cases: impl Strategy<Value = Case>) -> Result<Summary, String> {
    let summary = RefCell::new(Summary::default());
    // A failure shrinks as what it is: at zeros the second derivative may be all that is left to find fault with.
    let first: Cell<Option<Check>> = Cell::new(None);
    let result = runner().run(&points(cases), |point| {
        let mut summary = summary.borrow_mut();
        for (_, input) in point.inputs() {
            summary.certified.entry(input.to_string()).or_default();
        }
        match point.check() {
            Ok(report) => summary.add(report.into()),
            Err(Failure::Wrong(wrong)) if first.get().is_some_and(|check| check != wrong.check) => {}
            Err(failure) => {
                if let Failure::Wrong(wrong) = &failure {
                    first.set(Some(wrong.check));
                }
                return Err(TestCaseError::fail(failure.to_string()));
            }
        }
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
