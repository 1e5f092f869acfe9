use super::*;
use crate::testing::{check, check_all, distance, forward, normal, refuses, vjp};

/// By the largest number first, in another order.
fn softmax(x: &[f64]) -> Vec<f64> {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = x.iter().rev().map(|x| (x - largest).exp()).sum();
    x.iter().map(|x| (x - largest).exp() / total).collect()
}

fn lse(x: &[f64]) -> f64 {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + x.iter().rev().map(|x| (x - largest).exp()).sum::<f64>().ln()
}

fn nll(logits: &[f64], target: f64) -> f64 {
    if target < 0.0 { 0.0 } else { lse(logits) - logits[target as usize] }
}

fn formula(number: usize, width: usize, x: &[Vec<f64>]) -> Vec<f64> {
    let rows = x[0].chunks(width);
    match number {
        0 | 4 => rows.flat_map(softmax).collect(),
        1 => {
            let log = |x: &[f64]| {
                let lse = lse(x);
                x.iter().map(|x| x - lse).collect::<Vec<_>>()
            };
            rows.flat_map(log).collect()
        }
        _ => rows.zip(&x[1]).map(|(x, &target)| nll(x, target)).collect(),
    }
}

#[test]
fn matches_the_formula() {
    check_all(cases, &[], |s, number, x| {
        let width = [s.dim(), s.dim(), s.vocab, s.vocab, s.tokens * s.dim()][number];
        formula(number, width, x)
    });
}

/// Rows of one number, of part of a block, of several blocks, and of a large vocabulary.
#[test]
fn rows_of_any_width() {
    for (rows, d) in [(5, 1), (3, 1_000), (2, 2_500), (1, 100_000)] {
        let x = || Input::normal(&[rows, d]);
        let targets = Input::new(&[rows], Fill::Labels { below: d });
        let cases = [
            Case::new(format!("{d}"), Softmax, vec![x()]),
            Case::new(format!("{d}"), LogSoftmax, vec![x()]),
            Case::new(format!("{d}"), CrossEntropy, vec![x(), targets]),
        ];
        for (number, case) in cases.iter().enumerate() {
            check(case, |ins| formula(number, d, ins));
        }
    }
}

/// nll and lse, and the gradient of the logits for d_nll = 1.
fn losses(dims: &[usize], logits: &[f64], targets: &[i32], dtype: DType) -> [Vec<f64>; 3] {
    let ins = [Buffer::from_f64(dtype, dims, logits), Buffer::from_slice(&[targets.len()], targets)];
    let outs = forward(&CrossEntropy, &ins);
    let ones = Buffer::from_f64(dtype, &[targets.len()], &vec![1.0; targets.len()]);
    let d = vjp(&CrossEntropy, &[Want::Write, Want::Skip], &ins, &outs, &ones);
    [outs[0].to_f64(), outs[1].to_f64(), d[0].to_f64()]
}

/// A large number added to all logits changes only what rounding of the logits themselves changes.
#[test]
fn large_logits_lose_no_digits() {
    let small = [0.5, -1.25, 2.0, 0.0, 1.5];
    for shift in [1024.0, -1024.0, 65_536.0] {
        let large = small.map(|x| x + shift);
        let row = |x: &[f64; 5]| [Buffer::from_f64(DType::F32, &[5], x)];
        for op in [&Softmax as &dyn Op, &LogSoftmax] {
            assert_eq!(forward(op, &row(&large))[0].to_f64(), forward(op, &row(&small))[0].to_f64());
        }
        for target in [0, 1, 2] {
            let [expected, got] = [small, large].map(|x| losses(&[1, 5], &x, &[target], DType::F32));
            assert_eq!(got[0], expected[0]);
            assert!(distance(&got[2], &expected[2]) < 1e-6, "{:?}, not {:?}", got[2], expected[2]);
        }
    }
    // One logit far above, and far below, all others.
    for (logits, target, expected) in [
        ([1e30, 0.0, 0.0], 0, [0.0, 0.0, 0.0]),
        ([-1e30, 0.0, 0.0], 0, [-1.0, 0.5, 0.5]),
        ([800.0, 0.0, 0.0], 1, [1.0, -1.0, 0.0]),
    ] {
        let [nll, _, d] = losses(&[1, 3], &logits, &[target], DType::F32);
        assert_eq!(d, expected);
        assert!((nll[0] - self::nll(&logits, f64::from(target))).abs() <= 1e-6 * nll[0], "{nll:?}");
    }
}

#[test]
fn impossible_entries() {
    let inf = f64::INFINITY;
    // Whole blocks of −∞ before, between and after others.
    let mut x = vec![-inf; 5_000];
    (x[2_100], x[2_101], x[4_000]) = (3.0, 4.0, -5.0);
    let row = [Buffer::from_f64(DType::F64, &[5_000], &x)];
    let y = forward(&Softmax, &row)[0].to_f64();
    assert!(distance(&y, &softmax(&x)) < 1e-15 && y.iter().filter(|&&y| y == 0.0).count() == 4_997);
    let log = forward(&LogSoftmax, &row)[0].to_f64();
    assert!(log.iter().zip(&y).all(|(log, y)| (log.exp() - y).abs() < 1e-15));
    let [nll, _, d] = losses(&[1, 5_000], &x, &[2_101], DType::F64);
    assert!((nll[0] + log[2_101]).abs() < 1e-15 && (d[2_101] - (y[2_101] - 1.0)).abs() < 1e-15);
    // A target that is impossible costs infinitely much; its gradient is finite.
    let [nll, _, d] = losses(&[1, 5_000], &x, &[7], DType::F64);
    assert!(nll[0] == inf && d[7] == -1.0 && (d[2_100] - y[2_100]).abs() < 1e-15);
    // Nothing is possible, or there is no number.
    for bad in [[-inf, -inf], [inf, 0.0], [0.0, f64::NAN]] {
        let row = [Buffer::from_f64(DType::F64, &[2], &bad)];
        for op in [&Softmax as &dyn Op, &LogSoftmax] {
            assert!(forward(op, &row)[0].to_f64().iter().all(|y| y.is_nan()), "{bad:?}");
        }
        let [nll, lse, d] = losses(&[1, 2], &bad, &[0], DType::F64);
        assert!(nll[0].is_nan() && d.iter().all(|d| d.is_nan()), "{bad:?}: {nll:?} {d:?}");
        assert!(lse[0].is_nan() || (bad == [-inf, -inf] && lse[0] == -inf), "{bad:?}: {lse:?}");
    }
}

/// An ignored row adds nothing, whatever its logits; a vector has one target.
#[test]
fn ignored_rows() {
    let [nll, lse, d] = losses(&[2, 2], &[f64::NAN, 1.0, 0.0, 0.0], &[-1, 0], DType::F64);
    assert_eq!((nll[0], lse[0], &d), (0.0, 0.0, &vec![0.0, 0.0, -0.5, 0.5]));
    assert_eq!(losses(&[2], &[0.0, 0.0], &[1], DType::F64)[2], [0.5, -0.5]);
}

#[test]
#[should_panic(expected = "the target of row 1 is 3, must be −1 or below 3")]
fn a_target_outside_the_vocabulary() {
    losses(&[2, 3], &[0.0; 6], &[0, 3], DType::F32);
}

#[test]
fn one_target_per_row() {
    refuses(&CrossEntropy, "f32[2, 5, 7] i32[2, 4]", "targets is i32[2, 4], must be i32[2, 5]");
    refuses(&CrossEntropy, "f32[7] i32[7]", "targets is i32[7], must be i32[1]");
}

/// Sums of a hundred thousand numbers of f32 keep their digits; the differences of the exponents lose a few.
#[test]
fn wide_rows_of_singles() {
    let x = normal(DType::F32, &[100_000], 1);
    let y = forward(&Softmax, std::slice::from_ref(&x))[0].to_f64();
    let worst = y.iter().zip(softmax(&x.to_f64())).map(|(y, exact)| (y / exact - 1.0).abs()).fold(0.0, f64::max);
    assert!(worst < 1.5e-6, "{worst:e}");
}
