//! The properties of an op, each as a function that says what is wrong at the smallest shapes and values where it is.

use crate::faults::{self, Outcome, Planted};
use crate::graphs::{self, Recipe};
use crate::strategies::{Point, points};
use autograd::gradcheck::{Check, Failure, Options, Report, check_op};
use engine::{Buffer, DType, Error};
use kernels::case::{Case, Sizes};
use kernels::registry::ROOMS;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The cases of an op, or of several, at given sizes: what a room of `kernels` lists, or a stranger's op.
pub type Cases = fn(&Sizes) -> Vec<Case>;

/// What held, over all random cases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Comparisons with numeric derivatives that were made and held.
    pub checked: usize,
    /// Those that could certify nothing.
    pub not_checked: usize,
    /// The worst relative difference among those checked.
    pub worst: f64,
    /// The same by op.
    pub by_op: BTreeMap<String, Tried>,
    /// In how many random cases each input was certified, by op and input.
    pub certified: BTreeMap<(String, String), usize>,
}

/// What held of one op.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tried {
    /// Random cases; an op may have several at each of the random points.
    pub cases: usize,
    /// The worst relative difference among the comparisons with numeric derivatives.
    pub worst: f64,
}

impl Summary {
    fn take(&mut self, op: &str, report: &Report) {
        self.checked += report.checked;
        self.not_checked += report.not_checked.len();
        self.worst = self.worst.max(report.worst);
        let tried = self.by_op.entry(op.to_string()).or_default();
        tried.cases += 1;
        tried.worst = tried.worst.max(report.worst);
        for input in &report.certified {
            *self.certified.entry((op.to_string(), input.clone())).or_default() += 1;
        }
    }
}

/// 256 random cases, the same in every run; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` give more and others.
fn config() -> Config {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

/// An op that panics is refused, so that this shrinks like anything else.
fn check_at(case: &Case, point: &Point) -> Result<Report, Failure> {
    let options = Options { seed: point.seed, ..Options::default() };
    let checked = catch_unwind(AssertUnwindSafe(|| check_op(&*case.op, &point.buffers(case), &options)));
    checked.unwrap_or_else(|panic| {
        let texts = (panic.downcast_ref::<String>().map(String::as_str), panic.downcast_ref::<&str>().copied());
        let said = texts.0.or(texts.1).unwrap_or("without a word");
        Err(Error::new(format!("panicked: {said}")).at(case.op.name()).into())
    })
}

/// Every gradient for every subset of wanted inputs, at 256 random points ([`check_op`]).
///
/// ```
/// use gradtest::faults::{Fault, Faulty};
/// use kernels::case::{Case, Sizes};
///
/// /// GELU with a gradient of the wrong sign.
/// fn wrong(s: &Sizes) -> Vec<Case> {
///     let faulty = |case: Case| Case::new(case.label, Faulty::new(case.op, 0, Fault::Sign, s), case.ins);
///     kernels::gelu::cases(s).into_iter().map(faulty).collect()
/// }
///
/// let found = gradtest::gradients(wrong).unwrap_err();
/// assert!(found.starts_with("gelu: gradient of u[0] is "), "{found}");
/// // It shrinks to the smallest shape and the simplest number.
/// assert!(found.ends_with("\n  u f64[1, 1, 1] = [0.0]"), "{found}");
/// ```
///
/// # Errors
/// The wrong gradient and the smallest case that shows it; or an input that none of the points could certify.
pub fn gradients(cases: Cases) -> Result<Summary, String> {
    let summary = RefCell::new(Summary::default());
    // A failure shrinks as what it is: at zeros the second derivative may be all that is left to find fault with.
    let first: Cell<Option<Check>> = Cell::new(None);
    let result = TestRunner::new(config()).run(&points(), |point| {
        for case in cases(&point.sizes) {
            match check_at(&case, &point) {
                Ok(report) => summary.borrow_mut().take(case.op.name(), &report),
                Err(Failure::Wrong(wrong)) if first.get().is_some_and(|check| check != wrong.check) => {}
                Err(failure) => {
                    if let Failure::Wrong(wrong) = &failure {
                        first.set(Some(wrong.check));
                    }
                    return Err(TestCaseError::fail(failure.to_string()));
                }
            }
        }
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => return Err(reason.to_string()),
        Err(TestError::Fail(reason, point)) => return Err(smallest(cases, &point, reason.message())),
    }
    let summary = summary.into_inner();
    for case in cases(&Sizes { batch: 2, tokens: 3, heads: 1, head_dim: 2, window: 2, latents: 2, ffn: 2, vocab: 3 }) {
        for (i, input) in case.op.arguments().iter().enumerate().filter(|&(i, _)| case.op.differentiable(i)) {
            if !summary.certified.contains_key(&(case.op.name().to_string(), input.to_string())) {
                let name = case.op.name();
                return Err(format!("{name}: no gradient of {input} (input {i}) could be certified at any point"));
            }
        }
    }
    Ok(summary)
}

/// The failure once more, with the inputs that show it.
fn smallest(cases: Cases, point: &Point, reason: &str) -> String {
    let failing = cases(&point.sizes).into_iter().find_map(|case| {
        let failure = check_at(&case, point).err()?;
        (failure.to_string() == reason).then_some((failure, case))
    });
    // Cases that are not the same every time have no smallest one.
    let Some((failure, case)) = failing else { return format!("{reason}\nat {point:?}") };
    let mut text = format!("{failure}\nsmallest case: {}", case.label);
    for (name, buffer) in case.op.arguments().iter().zip(point.buffers(&case)) {
        write!(text, "\n  {name} {} = {}", buffer.spec(), numbers(&buffer)).expect("a string");
    }
    text
}

fn numbers(buffer: &Buffer) -> String {
    match buffer.dtype() {
        DType::I32 => format!("{:?}", buffer.as_slice::<i32>()),
        _ => format!("{:?}", buffer.to_f64()),
    }
}

/// The op among all others of this project in 256 random graphs: gradients of random subsets of leaves against central
/// differences, and the same bits for each leaf alone, without hoisting and with prepared weights
/// ([`check_graph`](autograd::gradcheck::check_graph)).
///
/// # Errors
/// The wrong gradient and the smallest graph that shows it.
pub fn random_graphs(cases: Cases) -> Result<Summary, String> {
    let palette: Vec<Cases> = std::iter::once(cases).chain(ROOMS.iter().map(|room| room.cases)).collect();
    let summary = RefCell::new(Summary::default());
    let result = TestRunner::new(config()).run(&graphs::recipes(), |recipe| {
        let mut report = recipe.check(&palette).map_err(|e| TestCaseError::fail(e.to_string()))?;
        // Leaves have the names of the arguments, and numbers.
        for name in &mut report.certified {
            name.truncate(name.trim_end_matches(|c: char| c.is_ascii_digit()).len());
        }
        summary.borrow_mut().take("graph", &report);
        Ok(())
    });
    match result {
        Ok(()) => Ok(summary.into_inner()),
        Err(TestError::Abort(reason)) => Err(reason.to_string()),
        Err(TestError::Fail(reason, recipe)) => Err(smallest_graph(&recipe, &palette, reason.message())),
    }
}

fn smallest_graph(recipe: &Recipe, palette: &[Cases], reason: &str) -> String {
    match recipe.build(palette) {
        Ok(built) => format!("{reason}\nsmallest graph:{}", built.listing),
        Err(e) => format!("{reason}\n{e}"),
    }
}

/// Plants every fault of [`faults::GENERIC`] and of `specific` into every differentiable input of every op of `cases`, and
/// tells which the check finds in 256 random cases.
///
/// ```
/// use gradtest::faults::{GENERIC, Outcome};
///
/// let planted = gradtest::planted_faults(kernels::gelu::cases, &[])?;
/// assert_eq!(planted.len(), GENERIC.len());
/// assert!(planted.iter().all(|p| p.outcome == Outcome::Caught));
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// A fault that changed a gradient and was not found.
pub fn planted_faults(cases: Cases, specific: &[faults::Fault]) -> Result<Vec<Planted>, String> {
    let mut runner = TestRunner::new(config());
    let tries = runner.config().cases;
    let points: Vec<Point> = (0..tries)
        .map(|_| points().new_tree(&mut runner).map(|tree| tree.current()))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let mut seen = Vec::new();
    let mut all = Vec::new();
    let typical = cases(&points.first().ok_or("no cases were asked for")?.sizes);
    for (k, case) in typical.iter().enumerate().filter(|(_, case)| !case.op.name().is_empty()) {
        if seen.contains(&case.op.name()) {
            continue;
        }
        seen.push(case.op.name());
        let applies = |fault: &&faults::Fault| fault.op().is_none_or(|op| op == case.op.name());
        for (i, input) in case.op.arguments().iter().enumerate().filter(|&(i, _)| case.op.differentiable(i)) {
            for fault in faults::GENERIC.iter().chain(specific).filter(applies) {
                let outcome = faults::try_out(cases, k, i, fault, &points);
                let (op, input, fault) = (case.op.name(), *input, fault.name());
                if outcome == Outcome::Survived {
                    return Err(format!(
                        "{op}: the planted fault \"{fault}\" in the gradient of {input} was not found"
                    ));
                }
                all.push(Planted { op, input, fault, outcome });
            }
        }
    }
    Ok(all)
}
