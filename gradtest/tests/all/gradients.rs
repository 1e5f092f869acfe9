use crate::{SIZES, all_cases, drawn, sizes};
use autograd::gradcheck::{Options, check_op};
use engine::{Buffer, Context, Cost, DType, Op, Output, Pass, Reads, Result, Spec, Want};
use gradtest::{Fault, Fill, Input, Strategy, shapes};
use kernels::case::{Case, Sizes};
use kernels::elementwise::Elementwise;
use std::collections::BTreeSet;
use std::ops::Range;
use std::thread;

/// Sizes large enough that every loop has full blocks and tails.
const MEDIUM: Sizes =
    Sizes { batch: 3, tokens: 97, heads: 3, head_dim: 22, window: 37, latents: 5, ffn: 83, vocab: 301 };

#[test]
fn every_gradient_of_every_op() {
    let cases = all_cases(&SIZES);
    let check = |k: usize, case: &Case| {
        let op = case.op.name();
        let reports = gradtest::gradients(drawn(k).prop_map(|(_, case)| case)).unwrap_or_else(|e| panic!("{op}: {e}"));
        // Most cases certify something.
        for (_, input) in case.differentiable() {
            let times = reports.iter().filter(|report| report.certified.iter().any(|name| name == input)).count();
            assert!(times >= 128, "{op} {input}: certified in only {times} cases");
        }
    };
    // The longest of all tests: on two threads.
    thread::scope(|scope| {
        for half in 0..2 {
            let (cases, check) = (&cases, &check);
            scope.spawn(move || cases.iter().enumerate().skip(half).step_by(2).for_each(|(k, case)| check(k, case)));
        }
    });
}

#[test]
fn every_gradient_at_sizes_with_full_blocks() {
    for case in all_cases(&MEDIUM) {
        let place = format!("{} {}", case.op.name(), case.label);
        let report = check_op(&*case.op, &case.buffers(DType::F64, 1), &Options { seed: 1, ..Options::default() });
        let report = report.unwrap_or_else(|e| panic!("{place}: {e}"));
        // Among so many numbers some are near a kink, so that the direction through all certifies nothing.
        let kinked = ["abs", "clamp", "relu"].contains(&case.op.name());
        for (i, input) in case.differentiable().filter(|_| !kinked) {
            assert!(report.certified.iter().any(|name| name == input), "{place}: input {i}, {input}: {report}");
        }
    }
}

fn gelu() -> impl Strategy<Value = Case> {
    shapes(3, 6).prop_map(|dims| Case::new("any shape", Elementwise::Gelu, vec![Input::new(&dims, Fill::NORMAL)]))
}

#[test]
fn random_graphs_of_all_ops() {
    let others = sizes().prop_map(|s| all_cases(&s));
    let reports = gradtest::random_graphs_with(gelu(), others).unwrap_or_else(|e| panic!("{e}"));
    let checked: usize = reports.iter().map(|report| report.checked).sum();
    // Leaves have the names of the arguments, and numbers.
    let names = reports.iter().flat_map(|report| &report.certified);
    let names: BTreeSet<&str> = names.map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit())).collect();
    assert!(checked > 500 && names.len() >= 15, "{checked} checks of {names:?}");
}

#[test]
fn an_op_that_panics_shrinks_too() {
    let panics = gelu().prop_map(|case| Fault::Sees(|_| panic!("no such row")).plant(0, case));
    let found = gradtest::gradients(panics).unwrap_err();
    assert!(found.starts_with("no such row\nsmallest case: any shape\n  u f64[1] = [0.0]\n"), "{found}");
}

/// The natural logarithm.
#[derive(Debug)]
struct Log {
    /// What it says to be its domain.
    domain: Range<f64>,
}

impl Op for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn domain(&self, _: usize) -> Range<f64> {
        self.domain.clone()
    }

    fn reads(&self, _: &[Want]) -> Reads {
        Reads::of(&[0], &[])
    }

    fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        outs[0].set_f64(&ins[0].to_f64().into_iter().map(f64::ln).collect::<Vec<_>>());
    }

    fn vjp(&self, _: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let slopes = ins[0].to_f64().into_iter().zip(d_y.to_f64()).map(|(x, d_y)| d_y / x);
        for (d, slope) in d[0].as_mut_slice::<f64>().iter_mut().zip(slopes) {
            *d = if wants[0] == Want::Add { *d } else { 0.0 } + slope;
        }
    }

    fn cost(&self, _: &[Spec], _: Pass) -> Cost {
        Cost::default()
    }
}

#[test]
fn an_op_is_checked_on_its_domain() {
    let cases = |domain: Range<f64>, fill: Fill| {
        shapes(2, 4).prop_map(move |dims| {
            let op = Log { domain: domain.clone() };
            Case::new("", op, vec![Input::new(&dims, fill.clone())])
        })
    };
    let (all, positive) = (f64::NEG_INFINITY..f64::INFINITY, 0.0..f64::INFINITY);
    let given = [Fill::Positive, Fill::UNIT, Fill::Between { low: 2.0, high: 9.0 }].map(|fill| (&all, fill));
    for (domain, fill) in given.into_iter().chain([(&positive, Fill::NORMAL)]) {
        let reports =
            gradtest::gradients(cases(domain.clone(), fill.clone())).unwrap_or_else(|e| panic!("{fill:?}: {e}"));
        let skipped: usize = reports.iter().map(|report| report.not_checked.len()).sum();
        assert!(skipped < 100, "{fill:?}: {skipped} numbers not checked");
        // In a graph, values of other ops are mapped into the domain.
        gradtest::random_graphs(cases(domain.clone(), fill)).unwrap_or_else(|e| panic!("{e}"));
    }
    let error = gradtest::gradients(cases(all, Fill::NORMAL)).unwrap_err();
    assert!(error.starts_with("log is not finite at or near ") && error.contains("draw x from its domain"), "{error}");
}
