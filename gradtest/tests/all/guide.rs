//! Compiles and runs the guide's example, and checks that the guide shows its output.

use gradtest::{Fault, Function, Input, Strategy, Tensor, shapes};
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
    is_below(&found);
    is_below(&graph);
}

/// The test that is printed is one of those below, which compile and fail.
fn is_below(failure: &str) {
    let (_, printed) = failure.split_once("to repeat it:\n").unwrap();
    // rustfmt may break a line, and then ends lists with a comma.
    let words = |text: &str| text.split_whitespace().collect::<String>().replace(",)", ")").replace(",]", "]");
    assert!(words(include_str!("guide.rs")).contains(&words(printed).replace("#[test]", "")), "{printed}");
}

/// y = 1 + 10⁻²⁰ x, whose gradient is lost in the rounding of every difference.
fn flat() -> Function {
    let value = |ins: &[Tensor]| ins[0].data.iter().map(|x| 1.0 + 1e-20 * x).collect();
    Function::new("flat", &["x"], value, |_, d_y| vec![d_y.iter().map(|d_y| 1e-20 * d_y).collect()])
}

#[test]
fn a_fault_that_is_not_found_is_printed() {
    let missed = gradtest::planted_faults(flat().cases(shapes(1, 1).prop_map(|dims| vec![Input::normal(&dims)])));
    let missed = missed.unwrap_err();
    assert!(
        missed.starts_with("the planted fault Sign in the gradient of x was not found, e.g. in flat\n"),
        "{missed}"
    );
    is_below(&missed);
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

#[test]
#[should_panic(expected = "projection.y: gradient of x0[1] is 2.099775761e0, should be 0.000000000e0 by central")]
fn softmax_in_its_smallest_graph() {
    use gradtest::graph::*;
    let (mut g, mut store) = (Graph::new(), Store::new(Device::CPU));
    let v0 = g.leaf("x0", Phase::Step, store.insert(Buffer::from_slice(&[2, 1], &[0.0, 0.0])));
    let v1 = g.apply(Softmax { mean: Everything }, &[v0]).unwrap();
    let v2 = g.apply(Projection { seed: 0, shape: Shape::new(&[1]) }, &[v1]).unwrap();
    check_graph(&g, &mut store, v2, &[v0], &Options { seed: 0, entrywise: 6 }).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
#[should_panic(expected = "the planted fault Sign in the gradient of x was not found")]
#[expect(unused_qualifications, reason = "as printed")]
fn flat_at_its_smallest_failure() {
    let op = flat();
    let ins = [
        gradtest::Buffer::from_slice(&[1], &[-0.625]), // x
    ];
    gradtest::at::planted(op, &ins, 47205, gradtest::Fault::Sign, 0).unwrap_or_else(|e| panic!("{e}"));
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
