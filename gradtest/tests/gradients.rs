//! Every op's gradient against central differences in f64: all subsets of wanted inputs, over shapes and values drawn by
//! proptest, which shrinks what fails; and the ops in random graphs.

use autograd::gradcheck::{Options, check_op};
use engine::DType;
use gradtest::faults::{Fault, Faulty};
use kernels::case::{Case, Sizes};
use kernels::registry::ROOMS;

/// Sizes large enough that every loop has full blocks and tails.
const MEDIUM: Sizes =
    Sizes { batch: 3, tokens: 97, heads: 3, head_dim: 22, window: 37, latents: 5, ffn: 83, vocab: 301 };

#[test]
fn every_gradient_of_every_op() {
    for room in ROOMS {
        let summary = gradtest::gradients(room.cases).unwrap_or_else(|e| panic!("{}: {e}", room.name));
        println!(
            "{}: {} comparisons, worst {:.1e}, {} not checked, certified {:?}",
            room.name, summary.checked, summary.worst, summary.not_checked, summary.certified
        );
        // More often than not there is something to be certain of.
        for (input, &times) in &summary.certified {
            assert!(times >= 128, "{input:?} was certified in {times} cases only");
        }
    }
}

#[test]
fn every_gradient_at_sizes_with_full_blocks() {
    for case in ROOMS.iter().flat_map(|room| (room.cases)(&MEDIUM)) {
        let place = format!("{} {}", case.op.name(), case.label);
        let report = check_op(&*case.op, &case.buffers(DType::F64, 1), &Options { seed: 1, ..Options::default() });
        let report = report.unwrap_or_else(|e| panic!("{place}: {e}"));
        for (i, input) in case.op.arguments().iter().enumerate().filter(|&(i, _)| case.op.differentiable(i)) {
            assert!(report.certified.iter().any(|c| c == input), "{place}: input {i}, {input}: {report}");
        }
    }
}

#[test]
fn random_graphs_of_all_ops() {
    let summary = gradtest::random_graphs(kernels::add::cases).unwrap_or_else(|e| panic!("{e}"));
    println!("{summary:?}");
    assert!(summary.checked > 500 && summary.certified.len() >= 15, "{summary:?}");
}

#[test]
fn an_op_that_panics_shrinks_too() {
    fn panics(s: &Sizes) -> Vec<Case> {
        let fault = Fault::Sees { op: "gelu", name: "nothing", change: |_| panic!("no such row") };
        let faulty = |case: Case| Case::new(case.label, Faulty::new(case.op, 0, fault.clone(), s), case.ins);
        kernels::gelu::cases(s).into_iter().map(faulty).collect()
    }
    let found = gradtest::gradients(panics).unwrap_err();
    assert!(found.starts_with("the check was refused: gelu: panicked: no such row\nsmallest case: "), "{found}");
    assert!(found.ends_with("\n  u f64[1, 1, 1] = [0.0]"), "{found}");
}
