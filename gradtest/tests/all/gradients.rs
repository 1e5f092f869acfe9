use crate::{SIZES, all_cases, drawn};
use autograd::gradcheck::{Options, check_op};
use engine::{Buffer, Context, Cost, DType, Op, Output, Pass, Reads, Result, Spec, Want};
use gradtest::{Fault, Fill, Input, Strategy, shapes};
use kernels::case::{Case, Sizes};
use kernels::gelu::Gelu;
use std::collections::BTreeSet;

/// Sizes large enough that every loop has full blocks and tails.
const MEDIUM: Sizes =
    Sizes { batch: 3, tokens: 97, heads: 3, head_dim: 22, window: 37, latents: 5, ffn: 83, vocab: 301 };

#[test]
fn every_gradient_of_every_op() {
    for (k, case) in all_cases(&SIZES).iter().enumerate() {
        let op = case.op.name();
        let reports = gradtest::gradients(drawn(k).prop_map(|(_, case)| case)).unwrap_or_else(|e| panic!("{op}: {e}"));
        // Most cases certify something.
        for (_, input) in case.differentiable() {
            let times = reports.iter().filter(|report| report.certified.iter().any(|name| name == input)).count();
            assert!(times >= 128, "{op} {input}: certified in only {times} cases");
        }
    }
}

#[test]
fn every_gradient_at_sizes_with_full_blocks() {
    for case in all_cases(&MEDIUM) {
        let place = format!("{} {}", case.op.name(), case.label);
        let report = check_op(&*case.op, &case.buffers(DType::F64, 1), &Options { seed: 1, ..Options::default() });
        let report = report.unwrap_or_else(|e| panic!("{place}: {e}"));
        for (i, input) in case.differentiable() {
            assert!(report.certified.iter().any(|name| name == input), "{place}: input {i}, {input}: {report}");
        }
    }
}

fn gelu() -> impl Strategy<Value = Case> {
    shapes(3, 6).prop_map(|dims| Case::new("any shape", Gelu, vec![Input::new(&dims, Fill::NORMAL)]))
}

#[test]
fn random_graphs_of_all_ops() {
    let reports = gradtest::random_graphs(gelu()).unwrap_or_else(|e| panic!("{e}"));
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
    assert_eq!(found, "no such row\nsmallest case: any shape\n  u f64[1] = [0.0]");
}

/// The natural logarithm.
#[derive(Debug)]
struct Log;

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
    let log = |fill: Fill| {
        gradtest::gradients(
            shapes(2, 4).prop_map(move |dims| Case::new("", Log, vec![Input::new(&dims, fill.clone())])),
        )
    };
    for fill in [Fill::Positive, Fill::Between { low: 0.0, high: 1.0 }, Fill::Between { low: 2.0, high: 9.0 }] {
        let reports = log(fill.clone()).unwrap_or_else(|e| panic!("{fill:?}: {e}"));
        let skipped: usize = reports.iter().map(|report| report.not_checked.len()).sum();
        assert!(skipped < 100, "{fill:?}: {skipped} numbers not checked");
    }
    let error = log(Fill::NORMAL).unwrap_err();
    assert!(error.starts_with("log is not finite at or near ") && error.contains("draw x from its domain"), "{error}");
}
