//! Compiles and runs the guide's example, and checks that the guide shows its output.

use own_op::{Mean, cases};

#[path = "../../../examples/own_op/src/lib.rs"]
mod own_op;

#[test]
fn the_guide_shows_what_the_check_finds() {
    let guide = include_str!("../../../examples/own_op/README.md");
    let found = gradtest::gradients(cases(Mean::Everything)).unwrap_err();
    // The gradient is right as long as there is one row, and the smallest case has two.
    assert!(found.contains("x f64[2, 1] = [0.0, 0.0]"), "{found}");
    let graph = gradtest::random_graphs(cases(Mean::Everything)).unwrap_err();
    assert!(graph.contains("smallest graph:\n") && graph.contains("= softmax("), "{graph}");
    for text in [&found, &graph] {
        assert!(guide.contains(&format!("```text\n{text}\n```")), "the guide should show:\n{found}\nand\n{graph}");
    }
}
