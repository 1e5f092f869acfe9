//! Functions in plain Rust and on another library's tensors: right ones pass, and mistakes are found and shrink.

use gradtest::{Foreign, Function, Input, Strategy, Tensor};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// A mistake in the gradient of the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    None,
    Sign,
    Transposed,
    MissingTerm,
    OffByOne,
    MeanForSum,
    FirstForAll,
    Stale,
}

/// `x [n, k], w [m, k] → y [n, m]`, y = x·wᵀ; d_x = d_y·w, d_w = d_yᵀ·x.
fn linear(mistake: Mistake) -> Function {
    let product = |ins: &[Tensor]| {
        let rows = |t: &Tensor| t.data.chunks(t.width()).map(<[f64]>::to_vec).collect::<Vec<_>>();
        let (x, w) = (rows(&ins[0]), rows(&ins[1]));
        x.iter().flat_map(|x| w.iter().map(|w| x.iter().zip(w).map(|(x, w)| x * w).sum()).collect::<Vec<_>>()).collect()
    };
    let first = Mutex::new(BTreeMap::new());
    Function::new("linear", &["x", "w"], product, move |ins, d_y| {
        let [n, m, k] = [ins[0].dims[0], ins[1].dims[0], ins[0].dims[1]];
        let (mut x, w) = (ins[0].data.clone(), &ins[1].data);
        if mistake == Mistake::Stale {
            // The numbers of the first call with this size.
            x = first.lock().unwrap().entry(x.len()).or_insert(x).clone();
        }
        let (mut d_x, mut d_w) = (vec![0.0; n * k], vec![0.0; m * k]);
        for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
            for c in 0..k {
                d_x[i * k + c] += d_y[i * m + j] * w[j * k + c];
                if mistake != Mistake::MissingTerm || i + 1 < n {
                    d_w[j * k + c] += d_y[i * m + j] * x[i * k + c];
                }
            }
        }
        match mistake {
            Mistake::Sign => d_w.iter_mut().for_each(|d| *d = -*d),
            Mistake::Transposed => d_w = (0..m * k).map(|i| d_w[i % m * k + i / m]).collect(),
            Mistake::OffByOne => d_w.rotate_right(k),
            Mistake::MeanForSum => d_w.iter_mut().for_each(|d| *d /= n as f64),
            Mistake::FirstForAll => d_w = d_w[..k].repeat(m),
            _ => {}
        }
        vec![d_x, d_w]
    })
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    (1..4usize, 1..4usize, 1..4usize).prop_map(|(n, m, k)| vec![Input::normal(&[n, k]), Input::normal(&[m, k])])
}

#[test]
fn a_right_function_passes_everything() {
    gradtest::all(linear(Mistake::None).cases(inputs())).unwrap_or_else(|e| panic!("{e}"));
    gradtest::second_order(linear(Mistake::None).cases(inputs())).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn mistakes_are_found_and_shrink() {
    let smallest = [
        (Mistake::Sign, "[1, 1]", "[1, 1]"),
        (Mistake::Transposed, "[1, 2]", "[2, 2]"),
        (Mistake::MissingTerm, "[1, 1]", "[1, 1]"),
        (Mistake::OffByOne, "[1, 1]", "[2, 1]"),
        (Mistake::MeanForSum, "[2, 1]", "[1, 1]"),
        (Mistake::FirstForAll, "[1, 1]", "[2, 1]"),
        // Its smallest size depends on what was drawn before.
        (Mistake::Stale, "[", "["),
    ];
    for (mistake, x, w) in smallest {
        let found = gradtest::gradients(linear(mistake).cases(inputs())).expect_err("a wrong gradient");
        assert!(found.starts_with("linear: gradient of w"), "{mistake:?}: {found}");
        assert!(found.contains(&format!("\n  x f64{x}")), "{mistake:?}: {found}");
        assert!(found.contains(&format!("\n  w f64{w}")), "{mistake:?}: {found}");
        assert!(found.contains("#[test]\nfn linear_at_its_smallest_failure() {\n    let op = linear();\n"), "{found}");
    }
}

#[test]
fn a_function_of_integers_has_a_constant() {
    // The row of x that each token names.
    let rows = |ins: &[Tensor]| ins[1].data.iter().map(|&t| ins[0].data[t as usize]).collect();
    let lookup = Function::new("lookup", &["x", "tokens"], rows, |ins, d_y| {
        let mut d_x = vec![0.0; ins[0].data.len()];
        ins[1].data.iter().zip(d_y).for_each(|(&t, d_y)| d_x[t as usize] += d_y);
        vec![d_x, vec![]]
    });
    let inputs = (1..5usize, 1..5usize).prop_map(|(rows, tokens)| {
        vec![Input::normal(&[rows]), Input::new(&[tokens], gradtest::Fill::Integers { below: rows })]
    });
    gradtest::all(lookup.constant(1).cases(inputs)).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
#[should_panic(expected = "wrong: the length of the gradient of x")]
fn a_gradient_of_the_wrong_length_is_named() {
    let wrong = Function::new("wrong", &["x"], |ins| ins[0].data.clone(), |_, _| vec![vec![]]);
    gradtest::gradients(wrong.cases(inputs().prop_map(|ins| ins[..1].to_vec()))).unwrap_or_else(|e| panic!("{e}"));
}

/// A tensor of a library that knows products of a tensor with itself: its numbers, and the slope of each.
struct Powers {
    numbers: Vec<f64>,
    slopes: Vec<f64>,
}

impl Powers {
    /// Itself times x, with the derivative times `factor`, which should be 1.
    fn times(&self, x: &Self, factor: f64) -> Self {
        let both = || self.numbers.iter().zip(&self.slopes).zip(&x.numbers);
        Self {
            numbers: both().map(|((a, _), x)| a * x).collect(),
            slopes: both().map(|((a, slope), x)| factor * slope * x + a).collect(),
        }
    }
}

impl Foreign for Powers {
    fn tracked(tensor: &Tensor) -> Self {
        Self { numbers: tensor.data.clone(), slopes: vec![1.0; tensor.data.len()] }
    }

    fn numbers(&self) -> Vec<f64> {
        self.numbers.clone()
    }

    fn gradients(&self, d_y: &[f64], _: &[Self]) -> Vec<Vec<f64>> {
        vec![self.slopes.iter().zip(d_y).map(|(slope, d_y)| slope * d_y).collect()]
    }
}

#[test]
fn another_librarys_tensors_are_checked() {
    let cube = |factor: f64| {
        // The strategy captures a local variable.
        let width = 1 + factor as usize;
        let inputs = (1..4usize).prop_map(move |rows| vec![Input::normal(&[rows, width])]);
        Function::foreign("cube", &["x"], move |x: &[Powers]| x[0].times(&x[0], factor).times(&x[0], factor))
            .cases(inputs)
    };
    gradtest::all(cube(1.0)).unwrap_or_else(|e| panic!("{e}"));
    let found = gradtest::gradients(cube(2.0)).unwrap_err();
    assert!(found.starts_with("cube: gradient of x[") && found.contains("x f64[1, 3] = "), "{found}");
}
