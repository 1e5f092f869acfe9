use super::*;
use crate::testing::{check, check_all, distance, forward, normal, refuses, same_bits, vjp};
use How::{Max, Mean};

/// Along an axis of `[outer, n, inner]`, or over all.
fn formula(op: Reduce, dims: &[usize], x: &[f64]) -> Vec<f64> {
    let axis = op.axis.unwrap_or(0);
    let (n, inner) = match op.axis {
        Some(_) => (dims[axis], dims[axis + 1..].iter().product()),
        None => (x.len(), 1),
    };
    let column = |o: usize, i: usize| (0..n).map(move |k| x[(o * n + k) * inner + i]);
    let result = |o: usize, i: usize| match op.how {
        // From the last to the first.
        How::Sum => column(o, i).rev().sum::<f64>(),
        Mean => column(o, i).rev().sum::<f64>() / n as f64,
        Max => column(o, i).fold(f64::NEG_INFINITY, f64::max),
    };
    (0..x.len() / (n * inner)).flat_map(|o| (0..inner).map(move |i| (o, i))).map(|(o, i)| result(o, i)).collect()
}

fn op_of(case: &Case) -> Reduce {
    let axis = match case.label.as_str() {
        "tokens" => Some(1),
        "last axis" => Some(2),
        _ => None,
    };
    let how = match case.op.name() {
        "sum" => How::Sum,
        "mean" => Mean,
        _ => Max,
    };
    Reduce { how, axis }
}

#[test]
fn matches_the_formula() {
    check_all(cases, &[], |s, number, x| {
        let (op, case) = (op_of(&cases(s)[number]), cases(s).swap_remove(number));
        formula(op, &case.ins[0].dims, &x[0])
    });
}

/// Pieces of rows and of columns, complete and partial; columns that tasks share; the first axis, all four axes of a tensor,
/// a vector, and axes of one place.
#[test]
fn any_axis_of_any_shape() {
    let shapes: &[&[usize]] =
        &[&[20_001], &[3, 8_200], &[260, 40], &[67, 2_060], &[3, 2, 5, 7], &[4_000, 3], &[9, 1, 1]];
    for dims in shapes {
        for axis in (0..dims.len()).map(Some).chain([None]) {
            for how in [How::Sum, Mean, Max] {
                let op = Reduce { how, axis };
                // The maximum has kinks where two numbers nearly meet, as many of so many do.
                if how == Max && dims.iter().product::<usize>() > 1_000 {
                    largest_of(op, dims);
                } else {
                    check(&Case::new(format!("{dims:?} {axis:?}"), op, vec![Input::normal(dims)]), |x| {
                        formula(op, dims, &x[0])
                    });
                }
            }
        }
    }
}

/// Values, places, and the gradient, which is the result's at these places.
fn largest_of(op: Reduce, dims: &[usize]) {
    let x = [normal(DType::F64, dims, 1)];
    let outs = same_bits("the maximum", || forward(&op, &x));
    assert_eq!(outs[0].to_f64(), formula(op, dims, &x[0].to_f64()));
    let d_y = normal(DType::F64, outs[0].shape().dims(), 2);
    let d_x = vjp(&op, &[Want::Write], &x, &outs, &d_y).swap_remove(0).to_f64();
    let added = vjp(&op, &[Want::Add], &x, &outs, &d_y).swap_remove(0).to_f64();
    assert!(added.iter().zip(&d_x).all(|(a, d)| *a == 1.0 + d));
    let View { n, inner, .. } = op.view(x[0].shape());
    let mut expected = vec![0.0; d_x.len()];
    let (y, index) = (outs[0].to_f64(), outs[1].as_slice::<i32>());
    for (r, (&at, &y)) in index.iter().zip(&y).enumerate() {
        let place = (r / inner * n + at as usize) * inner + r % inner;
        assert_eq!(x[0].as_slice::<f64>()[place], y);
        expected[place] = d_y.as_slice::<f64>()[r];
    }
    assert_eq!(d_x, expected);
}

/// The first of equal numbers wins, and the first NaN wins over all. The places are in the tail of a row, among its running
/// maxima, and in another piece.
#[test]
fn the_first_of_equals() {
    let inf = f32::INFINITY;
    let of = |n: usize, inner: usize, base: f32, marks: &[(usize, f32)]| {
        let mut x = vec![base; n * inner];
        marks.iter().for_each(|&(k, mark)| x[k * inner] = mark);
        let outs = forward(&Reduce::max_axis(0), &[Buffer::from_slice(&[n, inner], &x)]);
        (outs[0].as_slice::<f32>()[0], outs[1].as_slice::<i32>()[0])
    };
    for inner in [1, 2, 17] {
        for n in [300, 9_000] {
            assert_eq!(of(n, inner, 1.0, &[]), (1.0, 0));
            assert_eq!(of(n, inner, -inf, &[]), (-inf, 0));
            assert_eq!(of(n, inner, 0.0, &[(299, 2.0), (70, 2.0), (133, 2.0)]), (2.0, 70));
            assert_eq!(of(n, inner, 0.0, &[(n - 1, 2.0)]), (2.0, n as i32 - 1));
            assert_eq!(of(n, inner, -0.0, &[(5, 0.0)]).1, 0);
            let (y, at) = of(n, inner, 0.0, &[(3, inf), (n - 2, f32::NAN), (200, f32::NAN)]);
            assert!(y.is_nan() && at == 200, "{y} at {at}");
        }
    }
}

/// A sum of f32 is as good as rounding the exact sum: each running sum is short.
#[test]
fn long_sums_keep_their_digits() {
    let x: Vec<f32> = normal(DType::F32, &[1 << 20], 3).as_slice::<f32>().iter().map(|x| 1.0 + 0.1 * x).collect();
    let exact: f64 = x.iter().map(|&x| f64::from(x)).sum();
    for (dims, op) in
        [([1, 1 << 20], Reduce::sum_axis(1)), ([1 << 20, 1], Reduce::sum()), ([1 << 10, 1 << 10], Reduce::sum())]
    {
        let y = forward(&op, &[Buffer::from_slice(&dims, &x)]);
        assert!((y[0].to_f64()[0] / exact - 1.0).abs() < 1e-6);
    }
    let columns = forward(&Reduce::sum_axis(0), &[Buffer::from_slice(&[1 << 14, 1 << 6], &x)]);
    let sums: Vec<f64> = (0..64).map(|i| x.iter().skip(i).step_by(64).map(|&x| f64::from(x)).sum()).collect();
    assert!(distance(&columns[0].to_f64(), &sums) < 1e-6);
}

#[test]
fn the_axis_must_exist() {
    refuses(&Reduce::sum_axis(2), "f32[2, 3]", "x is f32[2, 3], must have an axis 2, counted from 0");
    refuses(&Reduce::max(), "f32[2, 0]", "x is f32[2, 0], must have elements");
}

/// A vector and all elements give one number; an axis of a tensor vanishes.
#[test]
fn shapes_of_results() {
    let of =
        |op: Reduce, dims: &[usize]| op.infer(&[Spec::new(DType::F32, dims)]).unwrap()[0].spec.shape.dims().to_vec();
    assert_eq!(of(Reduce::mean_axis(0), &[5]), [1]);
    assert_eq!(of(Reduce::mean(), &[5, 2]), [1]);
    assert_eq!(of(Reduce::max_axis(1), &[5, 2, 3]), [5, 3]);
}
