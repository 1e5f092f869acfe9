//! Each further check passes what is right and finds what it is made for.

use gradtest::{Case, Function, Input, Strategy, Tensor, shapes};
use std::sync::atomic::{AtomicU64, Ordering};

/// An elementwise function, with a derivative that most checks here do not read.
fn elementwise(f: fn(f64) -> f64, slope: fn(f64) -> f64) -> impl Strategy<Value = Case> {
    let value = move |ins: &[Tensor]| ins[0].data.iter().map(|&x| f(x)).collect();
    let function = Function::new("elementwise", &["x"], value, move |ins, d_y| {
        vec![ins[0].data.iter().zip(d_y).map(|(&x, d_y)| slope(x) * d_y).collect()]
    });
    function.cases(shapes(2, 4).prop_map(|dims| vec![Input::normal(&dims)]))
}

fn each(f: fn(f64) -> f64) -> impl Fn(&[Tensor]) -> Vec<f64> {
    move |ins| ins[0].data.iter().map(|&x| f(x)).collect()
}

/// What is found, without the case.
fn found(result: Result<(), String>) -> String {
    result.expect_err("a mistake").lines().next().unwrap().to_string()
}

fn right(result: Result<(), String>) {
    result.unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn values_are_compared_with_a_reference() {
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    right(gradtest::forward(elementwise(softplus, |_| 0.0), each(softplus)));
    // It overflows from 709.8 on, where the reference does not.
    let naive = gradtest::forward(elementwise(|x| x.exp().ln_1p(), |_| 0.0), each(softplus)).unwrap_err();
    assert!(
        naive.starts_with("elementwise: number ") && naive.contains(" of the result is inf, the reference gives "),
        "{naive}"
    );
    assert!(
        naive.ends_with("gradtest::at::forward(&op, &ins, reference).unwrap_or_else(|e| panic!(\"{e}\"));\n}"),
        "{naive}"
    );
    // Both may overflow, and cancellation in both is no mistake.
    right(gradtest::forward(elementwise(f64::exp, |_| 0.0), each(f64::exp)));
    right(gradtest::forward(elementwise(|x| (x + 1e6) - 1e6, |_| 0.0), each(|x| (x + 1e6) - 1e6)));
    let wrong = gradtest::forward(elementwise(|x| x.sin() + 1e-11, |_| 0.0), each(f64::sin));
    assert!(found(wrong).starts_with("elementwise: number 0 of the result is "));
    let nan = gradtest::forward(elementwise(|x| if x > 5.0 { f64::NAN } else { x }, |_| 0.0), each(|x| x));
    assert!(found(nan).contains(" of the result is NaN, the reference gives "));
}

#[test]
fn jacobian_vector_products_are_compared() {
    let product = |factor: f64| {
        move |x: &[Tensor], v: &[Tensor]| x[0].data.iter().zip(&v[0].data).map(|(x, v)| factor * x * v).collect()
    };
    let square = || elementwise(|x| x * x, |x| 2.0 * x);
    right(gradtest::jvp(square(), product(2.0)));
    assert!(
        found(gradtest::jvp(square(), product(2.0001))).starts_with("elementwise: the Jacobian-vector product is ")
    );
}

#[test]
fn second_derivatives_are_symmetric() {
    right(gradtest::second_order(elementwise(f64::sin, f64::cos)));
    right(gradtest::second_order(elementwise(f64::abs, f64::signum)));
    right(gradtest::second_order(elementwise(|x| x.max(0.0), |x| f64::from(u8::from(x > 0.0)))));
    // d_a = b and d_b = 2a belong to no function.
    let claim = |factor: f64| {
        let product = |ins: &[Tensor]| vec![ins[0].data[0] * ins[1].data[0]];
        let function = Function::new("product", &["a", "b"], product, move |ins, d_y| {
            vec![vec![d_y[0] * ins[1].data[0]], vec![factor * d_y[0] * ins[0].data[0]]]
        });
        gradtest::second_order(function.cases(shapes(1, 1).prop_map(|d| vec![Input::normal(&d); 2])))
    };
    right(claim(1.0));
    assert!(found(claim(2.0)).ends_with("no function has this gradient"));
}

#[test]
fn the_same_call_gives_the_same_bits() {
    right(gradtest::deterministic(elementwise(f64::sin, f64::cos)));
    let calls = AtomicU64::new(0);
    let counts = move |ins: &[Tensor]| {
        let call = calls.fetch_add(1, Ordering::Relaxed) as f64;
        ins[0].data.iter().map(|x| x + 1e-15 * call).collect()
    };
    let function = Function::new("counts", &["x"], counts, |_, d_y| vec![d_y.to_vec()]);
    let error = gradtest::deterministic(function.cases(shapes(1, 3).prop_map(|dims| vec![Input::normal(&dims)])));
    assert_eq!(found(error), "counts: output 0 has other bits when it is computed again");
}

#[test]
fn samples_do_not_depend_on_each_other() {
    // Numbers minus the mean of their group.
    let centred = |per_row: bool| {
        let centre = move |x: &[f64], width: usize| -> Vec<f64> {
            let group = if per_row { width } else { x.len() };
            x.chunks(group).flat_map(|x| x.iter().map(|a| a - x.iter().sum::<f64>() / x.len() as f64)).collect()
        };
        let function = Function::new(
            "centred",
            &["x"],
            move |ins| centre(&ins[0].data, ins[0].width()),
            move |ins, d_y| vec![centre(d_y, ins[0].width())],
        );
        function.cases((1..4usize, 1..4usize).prop_map(|(n, d)| vec![Input::normal(&[n, d])]))
    };
    right(gradtest::all(centred(false)));
    right(gradtest::independent_of_batch(centred(true), &[0]));
    let error = gradtest::independent_of_batch(centred(false), &[0]);
    assert_eq!(found(error), "centred: sample 0 has other bits in a batch of one");
}

#[test]
fn no_nan_is_hidden() {
    right(gradtest::nan_stays(elementwise(|x| if x <= 0.0 { 0.0 } else { x }, |_| 0.0)));
    let hides = gradtest::nan_stays(elementwise(|x| x.max(0.0), |_| 0.0));
    assert_eq!(found(hides), "elementwise: number 0 of the result is 0, though x[0] is NaN");
}

/// The tolerance is one millionth. Of what is larger, a fifth suffices.
#[test]
fn an_error_of_little_more_than_a_millionth_is_found() {
    type Numbers = fn(f64) -> f64;
    let softplus: [Numbers; 2] = [|x| x.max(0.0) + (-x.abs()).exp().ln_1p(), |x| 1.0 / (1.0 + (-x).exp())];
    let functions: [[Numbers; 2]; 4] =
        [[f64::sin, f64::cos], [|x| x * x, |x| 2.0 * x], [f64::tanh, |x| x.cosh().powi(-2)], softplus];
    for [f, slope] in functions {
        let wrong = |error: f64| {
            let value = move |ins: &[Tensor]| ins[0].data.iter().map(|&x| f(x)).collect();
            let function = Function::new("wrong", &["x"], value, move |ins, d_y| {
                vec![ins[0].data.iter().zip(d_y).map(|(&x, d_y)| (1.0 + error) * slope(x) * d_y).collect()]
            });
            let cases = function.cases(shapes(2, 4).prop_map(|dims| vec![Input::normal(&dims)]));
            gradtest::first_failure(cases).map(|failure| failure.to_string())
        };
        assert!(wrong(1.2e-6).is_some() && wrong(-1.2e-6).is_some());
        assert_eq!(wrong(0.8e-6), None);
    }
}
