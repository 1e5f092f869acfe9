use crate::{SIZES, all_cases, drawn};
use autograd::gradcheck::{Options, check_op};
use engine::DType;
use gradtest::{Fault, Fill, Input, Strategy, shapes};
use kernels::case::{Case, Sizes};
use kernels::gelu::Gelu;

/// Sizes large enough that every loop has full blocks and tails.
const MEDIUM: Sizes =
    Sizes { batch: 3, tokens: 97, heads: 3, head_dim: 22, window: 37, latents: 5, ffn: 83, vocab: 301 };

#[test]
fn every_gradient_of_every_op() {
    for (k, case) in all_cases(&SIZES).iter().enumerate() {
        let op = case.op.name();
        let summary = gradtest::gradients(drawn(k).prop_map(|(_, case)| case)).unwrap_or_else(|e| panic!("{op}: {e}"));
        println!("{op}: {summary:?}");
        // More often than not there is something to be certain of.
        for (input, &times) in &summary.certified {
            assert!(times >= 128, "{op} {input}: certified in {times} cases only");
        }
    }
}

#[test]
fn every_gradient_at_sizes_with_full_blocks() {
    for case in all_cases(&MEDIUM) {
        let place = format!("{} {}", case.op.name(), case.label);
        let report = check_op(&*case.op, &case.buffers(DType::F64, 1), &Options { seed: 1, ..Options::default() });
        let report = report.unwrap_or_else(|e| panic!("{place}: {e}"));
        for (i, input) in case.op.arguments().iter().enumerate().filter(|&(i, _)| case.op.differentiable(i)) {
            assert!(report.certified.iter().any(|c| c == input), "{place}: input {i}, {input}: {report}");
        }
    }
}

fn gelu() -> impl Strategy<Value = Case> {
    shapes(3, 6).prop_map(|dims| Case::new("any shape", Gelu, vec![Input::new(&dims, Fill::NORMAL)]))
}

#[test]
fn random_graphs_of_all_ops() {
    let summary = gradtest::random_graphs(gelu()).unwrap_or_else(|e| panic!("{e}"));
    println!("{summary:?}");
    assert!(summary.checked > 500 && summary.certified.len() >= 15, "{summary:?}");
}

#[test]
fn an_op_that_panics_shrinks_too() {
    let panics = gelu().prop_map(|case| Fault::Sees(|_| panic!("no such row")).plant(0, case));
    let found = gradtest::gradients(panics).unwrap_err();
    assert_eq!(found, "no such row\nsmallest case: any shape\n  u f64[1] = [0.0]");
}
