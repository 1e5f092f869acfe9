use super::*;
use crate::testing;
use engine::simd::for_each_level;
use engine::{DType, rng::Stream};

/// The definition, with the whole matrix of scores.
fn formula(s: &Sizes, qkv: &[f64]) -> Vec<f64> {
    let (n, d) = (s.tokens, s.dim());
    let at = |sample: usize, row: usize, column: usize| qkv[(sample * n + row) * 3 * d + column];
    let mut y = vec![];
    for (sample, i, column) in
        (0..s.batch).flat_map(|b| (0..n).flat_map(move |i| (0..d).map(move |column| (b, i, column))))
    {
        let head = column / s.head_dim * s.head_dim..(column / s.head_dim + 1) * s.head_dim;
        let score = |j: usize| -> f64 {
            head.clone().map(|c| at(sample, i, c) * at(sample, j, d + c)).sum::<f64>() / (s.head_dim as f64).sqrt()
        };
        let weights: Vec<f64> = (0..n).map(|j| if j <= i && i - j < s.window { score(j).exp() } else { 0.0 }).collect();
        let values: f64 = weights.iter().enumerate().map(|(j, w)| w * at(sample, j, 2 * d + column)).sum();
        y.push(values / weights.iter().sum::<f64>());
    }
    y
}

#[test]
fn matches_the_formula() {
    for s in testing::sizes() {
        for case in cases(&s) {
            testing::check(&case, |ins| formula(&s, &ins[0]));
        }
    }
}

/// Several blocks and chunks, whole and cut, with every kind of window.
#[test]
fn blocks_match_the_formula() {
    for (tokens, window, heads, head_dim) in
        [(133, 50, 2, 6), (96, 1, 1, 4), (65, 200, 1, 16), (160, 33, 1, 34), (64, 16, 2, 2), (81, 7, 1, 32)]
    {
        let s = Sizes { batch: 2, tokens, window, heads, head_dim, ..testing::sizes()[0] };
        let case = &cases(&s)[0];
        let qkv = &case.buffers(DType::F64, 3)[0];
        let outs = testing::forward(&*case.op, &[qkv]);
        let values = qkv.to_f64();
        let error = testing::distance(&outs[0].to_f64(), &formula(&s, &values));
        assert!(error < 1e-13, "{s:?}: {error:e}");

        // The gradient along a direction against a central difference.
        let normal = |site, len| {
            let mut x = vec![0.0; len];
            Stream::new(8, site).fill_normal(&mut x, |x| x);
            x
        };
        let (cotangent, direction) = (normal(0, outs[0].len()), normal(1, values.len()));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let moved = |step: f64| {
            let moved: Vec<f64> = values.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
            dot(&formula(&s, &moved), &cotangent)
        };
        let h = 1e-4;
        let expected = (8.0 * (moved(h) - moved(-h)) - (moved(2.0 * h) - moved(-2.0 * h))) / (12.0 * h);
        let d_y = Buffer::from_f64(DType::F64, outs[0].shape().dims(), &cotangent);
        let d_qkv = testing::vjp(&*case.op, &[Want::Write], &[qkv], &outs, &d_y);
        let got = dot(&d_qkv[0].to_f64(), &direction);
        assert!((got - expected).abs() < 1e-7 * expected.abs().max(1.0), "{s:?}: {got} {expected}");
    }
}

/// The same bits on any number of threads and any instruction set, at sizes with several chunks; and a sample's numbers
/// do not depend on the others in the batch.
#[test]
fn bits_depend_on_nothing_else() {
    let s = Sizes { batch: 3, tokens: 150, window: 40, heads: 2, head_dim: 18, ..testing::sizes()[0] };
    let case = &cases(&s)[0];
    let qkv = &case.buffers(DType::F32, 3)[0];
    let run = |qkv: &Buffer| {
        let outs = testing::forward(&*case.op, &[qkv]);
        let d_qkv = testing::vjp(&*case.op, &[Want::Add], &[qkv], &outs, &outs[0]).remove(0);
        [outs[0].as_slice::<f32>().to_vec(), outs[1].as_slice().to_vec(), d_qkv.as_slice().to_vec()]
    };
    let all = run(qkv);
    for_each_level(|level| {
        for threads in [1, 3] {
            assert!(testing::with_threads(threads, || run(qkv)) == all, "{level}, {threads} threads");
        }
    });
    for (sample, values) in qkv.as_slice::<f32>().chunks(qkv.len() / s.batch).enumerate() {
        let alone = run(&Buffer::from_slice(&[1, s.tokens, 3 * s.dim()], values));
        for (all, alone) in all.iter().zip(&alone) {
            assert!(all[sample * alone.len()..][..alone.len()] == alone[..]);
        }
    }
}

/// Large scores: no overflow, and the nearest key takes all.
#[test]
fn large_scores_are_no_trouble() {
    let (n, d) = (40, 2);
    let mut qkv = vec![0.0f32; n * 3 * d];
    for (i, row) in qkv.chunks_mut(3 * d).enumerate() {
        row.copy_from_slice(&[300.0, 0.0, 300.0 * (1 + i % 3) as f32, 0.0, i as f32, 1.0]);
    }
    let qkv = Buffer::from_slice(&[1, n, 3 * d], &qkv);
    let op = WindowAttention { heads: 1, window: 3 };
    let outs = testing::forward(&op, &[&qkv]);
    for (i, y) in outs[0].as_slice::<f32>().chunks(2).enumerate().skip(2) {
        let largest = (i - 2..=i).find(|j| j % 3 == 2).unwrap();
        assert_eq!(y, [largest as f32, 1.0]);
    }
    let d_qkv = testing::vjp(&op, &[Want::Write], &[&qkv], &outs, &outs[0]);
    assert!(d_qkv[0].as_slice::<f32>().iter().all(|x| x.is_finite()));
}

#[test]
fn errors_name_what_is_wrong() {
    let error = |heads, window, dims: &[usize]| {
        WindowAttention { heads, window }.infer(&[Spec::new(DType::F32, dims)]).unwrap_err().to_string()
    };
    assert_eq!(error(2, 4, &[1, 5, 16]), "qkv is f32[1, 5, 16], its last size must be a multiple of 6 heads");
    assert_eq!(error(2, 4, &[5, 12]), "qkv is f32[5, 12], must have 3 dimensions");
    assert_eq!(error(2, 0, &[1, 5, 12]), "a window of 0 tokens sees nothing, must be at least 1");
}

#[test]
fn cost_counts_the_pairs_that_are_seen() {
    let op = WindowAttention { heads: 2, window: 3 };
    let qkv = Spec::new(DType::F32, &[2, 5, 3 * 8]);
    // One token sees 1, one 2, three 3.
    let pairs = 2 * 2 * (1 + 2 + 3 * 3);
    let cost = op.cost(&[qkv], Pass::Forward);
    assert_eq!(cost.flops, pairs * (4 * 4 + 4));
    assert_eq!(cost.bytes, 4 * 2 * 5 * (24 + 8 + 2));
}
