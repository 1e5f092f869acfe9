//! Compiles and runs the guide's example, and checks that the guide shows its output.

use gradtest::{Fault, Strategy};
use own_op::Mean::{self, Everything};
use own_op::{Softmax, cases};

#[path = "../../../examples/own_op/src/lib.rs"]
mod own_op;

#[test]
fn the_guide_shows_what_the_check_finds() {
    let guide = include_str!("../../../examples/own_op/README.md");
    let found = gradtest::gradients(cases(Everything)).unwrap_err();
    // The gradient is right as long as there is one row, and the smallest case has two.
    assert!(found.contains("x f64[2, 1] = [0.0, 0.0]"), "{found}");
    let graph = gradtest::random_graphs(cases(Everything)).unwrap_err();
    assert!(graph.contains("smallest graph:\n") && graph.contains("= softmax("), "{graph}");
    for text in [&found, &graph] {
        assert!(guide.contains(&format!("```text\n{text}\n```")), "the guide should show:\n{found}\nand\n{graph}");
    }
    // The test that it prints is the one below, which compiles and fails.
    let (_, printed) = found.split_once("to repeat it:\n").unwrap();
    let words = |text: &str| text.split_whitespace().collect::<String>();
    assert!(words(include_str!("guide.rs")).contains(&words(printed).replace("#[test]", "")), "{printed}");
}

#[test]
#[should_panic(
    expected = "softmax: gradient of x[0] is -3.346524731e0, should be 0.000000000e0 by central differences"
)]
fn softmax_at_its_smallest_failure() {
    let op = Softmax { mean: Everything };
    let ins = [
        gradtest::Buffer::from_slice(&[2, 1], &[0.0, 0.0]), // x
    ];
    gradtest::check_op(&op, &ins, &gradtest::Options { seed: 0, ..Default::default() })
        .unwrap_or_else(|e| panic!("{e}"));
}

/// Each mistake in an op from outside is found, and shrinks to at most two rows of two numbers.
#[test]
fn mistakes_in_an_own_op_shrink() {
    for fault in Fault::GENERIC {
        let faulty = cases(Mean::Row).prop_map(|case| fault.clone().plant(0, case));
        let found = gradtest::gradients(faulty).expect_err("a wrong gradient");
        let (_, shape) = found.split_once("  x f64[").unwrap();
        let shape = shape.split(']').next().unwrap();
        let numbers: usize = shape.split(", ").map(|n| n.parse::<usize>().unwrap()).product();
        assert!(numbers <= 4, "{fault:?} shrank to [{shape}]: {found}");
    }
}
