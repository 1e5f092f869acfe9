use super::*;
use crate::testing::{check, check_all, forward, refuses, sizes, vjp};

/// The functions in plain arithmetic of the standard library.
fn formula(f: Elementwise, x: &[f64]) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match f {
        Elementwise::Add => x[0] + x[1],
        Elementwise::Sub => x[0] - x[1],
        Elementwise::Mul => x[0] * x[1],
        Elementwise::Div => x[0] / x[1],
        Elementwise::Neg => -x[0],
        Elementwise::Exp => x[0].exp(),
        Elementwise::Log => x[0].ln(),
        Elementwise::Sqrt => x[0].sqrt(),
        Elementwise::Pow(p) => x[0].powf(p),
        Elementwise::Tanh => x[0].tanh(),
        Elementwise::Sigmoid => sigmoid(x[0]),
        Elementwise::Relu => x[0].max(0.0),
        Elementwise::Silu => x[0] * sigmoid(x[0]),
        Elementwise::Gelu => {
            0.5 * x[0] * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x[0] + 0.044715 * x[0].powi(3))).tanh())
        }
        Elementwise::Abs => x[0].abs(),
        Elementwise::Clamp { low, high } => x[0].clamp(low, high),
        Elementwise::Where => {
            if x[0] <= 0.0 {
                x[2]
            } else {
                x[1]
            }
        }
        Elementwise::SquaredError => (x[0] - x[1]).powi(2),
        Elementwise::BinaryCrossEntropy => -x[1] * sigmoid(x[0]).ln() - (1.0 - x[1]) * sigmoid(-x[0]).ln(),
    }
}

#[test]
fn matches_the_formula() {
    fn compute(f: Elementwise, x: &[Vec<f64>]) -> Vec<f64> {
        let n = x.iter().map(Vec::len).max().unwrap_or(0);
        let at = |i: usize| x.iter().map(|x| x[i % x.len()]).collect::<Vec<_>>();
        (0..n).map(|i| formula(f, &at(i))).collect()
    }
    let functions: Vec<Elementwise> = ALL.into_iter().chain(REPEATED.map(|(_, f, _)| f)).collect();
    check_all(cases, &[], |_, number, x| compute(functions[number], x));
    // Repeated inputs of more than a piece, and of enough elements for sums by blocks and by columns.
    let large = Sizes { batch: 3, tokens: 150, heads: 1, head_dim: 270, ..sizes()[0] };
    for case in &cases(&large)[ALL.len()..] {
        let (_, f, _) = REPEATED.iter().find(|(label, ..)| *label == case.label).expect("a repeated input");
        check(case, |x| compute(*f, x));
    }
}

/// Elements at which a formula could lose its digits, in units of the last place.
#[test]
fn results_keep_their_digits() {
    let near = [1e-300, 1e-12, 1e-5, 0.3, 0.624, 0.626, 1.0, 3.0, 20.0, 36.0, 700.0];
    let both: Vec<f64> = near.iter().flat_map(|&x| [x, -x]).collect();
    let positive = [5e-324, 1e-310, 1e-9, 0.5, 0.999_999_9, 1.000_000_1, 2.0, 1e300];
    let pairs = |f: Elementwise, x: &[f64], exact: &dyn Fn(f64) -> f64, ulps: f64| {
        let mut ins = vec![Buffer::from_slice(&[x.len()], x)];
        if f == Elementwise::BinaryCrossEntropy {
            ins.push(Buffer::from_slice(&[1], &[1.0]));
        }
        for (&x, y) in x.iter().zip(forward(&f, &ins)[0].to_f64()) {
            let exact = exact(x);
            let error = (y - exact).abs() / (exact.abs() * f64::EPSILON).max(5e-324);
            assert!(error <= ulps, "{}({x:e}) is {y:e}, should be {exact:e}: {error} ulp", f.name());
        }
    };
    pairs(Elementwise::Tanh, &both, &f64::tanh, 4.0);
    pairs(Elementwise::Log, &positive, &f64::ln, 2.0);
    pairs(Elementwise::Pow(2.5), &positive[1..7], &|x| x.powf(2.5), 8.0);
    pairs(Elementwise::Pow(-2.0), &[0.5, -3.0, 1e9], &|x| x.powi(-2), 4.0);
    // A loss of e⁻ˣ, where 1 + e⁻ˣ is 1.
    pairs(Elementwise::BinaryCrossEntropy, &both, &|x| (-x).max(0.0) + (-x.abs()).exp().ln_1p(), 8.0);
}

#[test]
fn kinks_ends_and_nan() {
    let x = [f64::NEG_INFINITY, -1.0, -0.0, 0.0, 1.0, f64::INFINITY, f64::NAN];
    let ins = [Buffer::from_slice(&[7], &x)];
    let d_y = Buffer::from_slice(&[7], &[2.0f64; 7]);
    let slopes = |f: Elementwise| vjp(&f, &[Want::Write], &ins, &forward(&f, &ins), &d_y)[0].to_f64();
    let values = |f: Elementwise| forward(&f, &ins)[0].to_f64();
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let same =
        |a: Vec<f64>, b: [f64; 7]| assert!(a.iter().zip(b).all(|(a, b)| *a == b || a.is_nan() && b.is_nan()), "{a:?}");
    same(values(Elementwise::Relu), [0.0, 0.0, 0.0, 0.0, 1.0, inf, nan]);
    same(slopes(Elementwise::Relu), [0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 0.0]);
    same(values(Elementwise::Abs), [inf, 1.0, 0.0, 0.0, 1.0, inf, nan]);
    same(slopes(Elementwise::Abs), [-2.0, -2.0, 0.0, 0.0, 2.0, 2.0, 0.0]);
    let clamp = Elementwise::Clamp { low: -1.0, high: 1.0 };
    same(values(clamp), [-1.0, -1.0, 0.0, 0.0, 1.0, 1.0, nan]);
    same(slopes(clamp), [0.0, 2.0, 2.0, 2.0, 2.0, 0.0, 2.0]);
    same(values(Elementwise::Log), [nan, nan, -inf, -inf, 0.0, inf, nan]);
    same(values(Elementwise::Sqrt), [nan, nan, 0.0, 0.0, 1.0, inf, nan]);
    same(values(Elementwise::Tanh), [-1.0, -0.761_594_155_955_764_9, 0.0, 0.0, 0.761_594_155_955_764_9, 1.0, nan]);
    same(values(Elementwise::Pow(0.3)), [nan, nan, 0.0, 0.0, 1.0, inf, nan]);
    let gelu = slopes(Elementwise::Gelu);
    assert!((gelu[0], gelu[5]) == (0.0, 2.0) && gelu[6].is_nan(), "{gelu:?}");
    same(values(Elementwise::Pow(-1.0)), [0.0, -1.0, -inf, inf, 1.0, 0.0, nan]);
}

#[test]
fn shapes_must_fit() {
    let among = "or its last dimensions, or [1]; or the other way round";
    refuses(&Elementwise::Add, "f32[2, 3] f32[2]", &format!("b is f32[2], must be f32[2, 3] like a, {among}"));
    refuses(&Elementwise::Add, "f32[2, 3] f64[3]", "b is f64[3], must hold f32 like a");
    refuses(&Elementwise::Exp, "i32[3]", "x is i32[3], must hold floats");
    refuses(
        &Elementwise::Where,
        "f32[2] f32[3, 2] f32[4, 2]",
        &format!("a is f32[3, 2], must be f32[4, 2] like b, {among}"),
    );
    let clamp = Elementwise::Clamp { low: 1.0, high: 0.0 };
    refuses(&clamp, "f32[2]", "the lower bound 1 must not exceed the upper bound 0");
}

#[test]
fn gelu_saturates_without_nan() {
    let u = [Buffer::from_slice(&[4], &[-1e4f32, 1e4, 0.0, -30.0])];
    let y = forward(&Elementwise::Gelu, &u);
    assert_eq!(y[0].as_slice::<f32>(), [0.0, 1e4, 0.0, 0.0]);
    let d_y = Buffer::from_slice(&[4], &[1.0f32; 4]);
    let d_u = vjp(&Elementwise::Gelu, &[Want::Write], &u, &y, &d_y);
    assert_eq!(d_u[0].as_slice::<f32>(), [0.0, 1.0, 0.5, 0.0]);
}
