use super::*;
use crate::testing::{check_all, forward, normal, ones, refuses, sizes, vjp};
use engine::{DType, Eager, Products};

/// The definition, with the whole matrix of scores, for case `number`.
fn formula(s: &Sizes, number: usize, ins: &[Vec<f64>]) -> Vec<f64> {
    let qkv = &ins[0];
    let sees = |sample: usize, i: usize, j: usize| match number {
        0 => j <= i && i - j < s.window,
        1 => j <= i,
        2 => true,
        _ => i.max(j) < ins[1][sample] as usize,
    };
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
        let weights: Vec<f64> = (0..n).map(|j| if sees(sample, i, j) { score(j).exp() } else { 0.0 }).collect();
        let values: f64 = weights.iter().enumerate().map(|(j, w)| w * at(sample, j, 2 * d + column)).sum();
        let sum: f64 = weights.iter().sum();
        y.push(if sum > 0.0 { values / sum } else { 0.0 });
    }
    y
}

#[test]
fn matches_the_formula() {
    // Several blocks and chunks, complete and partial, with every kind of window.
    let larger = [[133, 50, 2, 6], [96, 1, 1, 4], [65, 200, 1, 16], [160, 33, 1, 34], [64, 16, 2, 2], [81, 7, 1, 32]];
    let larger =
        larger.map(|[tokens, window, heads, head_dim]| Sizes { tokens, window, heads, head_dim, ..sizes()[0] });
    check_all(cases, &larger, formula);
}

/// A text alone has the bits that it has with padding behind it, whatever the padding holds, and other texts beside it.
#[test]
fn padding_does_not_exist() {
    let (n, heads, head_dim) = (70, 2, 34);
    let (d, op) = (heads * head_dim, SelfAttention { heads, sees: Sees::Text });
    let lengths = [0, 1, 33, 69, 70];
    let mut qkv = normal(DType::F32, &[lengths.len(), n, 3 * d], 1);
    let mut d_y = normal(DType::F32, &[lengths.len(), n, d], 2);
    for (sample, &length) in lengths.iter().enumerate() {
        let padding = |width: usize| (sample * n + length as usize) * width..(sample + 1) * n * width;
        qkv.as_mut_slice::<f32>()[padding(3 * d)].fill(f32::NAN);
        d_y.as_mut_slice::<f32>()[padding(d)].fill(f32::NAN);
    }
    for device in [Device::CPU, Device::CPU.with(Products::Bf16)] {
        let run = |tokens: usize, lengths: &[i32], qkv: &[f32], d_y: &[f32]| {
            let batch = lengths.len();
            let ins = [Buffer::from_slice(&[batch, tokens, 3 * d], qkv), Buffer::from_slice(&[batch], lengths)];
            let (eager, d_y) = (Eager { device: &device, op: &op }, Buffer::from_slice(&[batch, tokens, d], d_y));
            let outs = eager.forward(&ins);
            let gradient = |want, from| eager.vjp(&[want, Want::Skip], &ins, &outs, &d_y, from).swap_remove(0);
            let (written, added) = (gradient(Want::Write, &ins), gradient(Want::Add, &ones(&ins)));
            [outs, vec![written, added]].concat()
        };
        let (qkv, d_y) = (qkv.as_slice::<f32>(), d_y.as_slice::<f32>());
        let together = run(n, &lengths, qkv, d_y);
        for (sample, &length) in lengths.iter().enumerate().skip(1) {
            let tokens = length as usize;
            let own = |x: &[f32], width: usize| x[sample * n * width..][..tokens * width].to_vec();
            let alone = run(tokens, &[length], &own(qkv, 3 * d), &own(d_y, d));
            for ((together, alone), padding) in together.iter().zip(&alone).zip([0.0, 0.0, 0.0, 1.0]) {
                let width = together.shape().last();
                let (text, rest) = together.as_slice::<f32>()[sample * n * width..][..n * width].split_at(alone.len());
                assert_eq!(text, alone.as_slice::<f32>(), "sample {sample}");
                assert!(rest.iter().all(|&x| x == padding), "sample {sample}");
            }
        }
    }
}

/// Large scores: no overflow, and the nearest key gets all the weight.
#[test]
fn large_scores_are_no_trouble() {
    let (n, d) = (40, 2);
    let mut qkv = vec![0.0f32; n * 3 * d];
    for (i, row) in qkv.chunks_mut(3 * d).enumerate() {
        row.copy_from_slice(&[300.0, 0.0, 300.0 * (1 + i % 3) as f32, 0.0, i as f32, 1.0]);
    }
    let qkv = Buffer::from_slice(&[1, n, 3 * d], &qkv);
    let op = SelfAttention { heads: 1, sees: Sees::Window(3) };
    let outs = forward(&op, &[&qkv]);
    for (i, y) in outs[0].as_slice::<f32>().chunks(2).enumerate().skip(2) {
        let largest = (i - 2..=i).find(|j| j % 3 == 2).unwrap();
        assert_eq!(y, [largest as f32, 1.0]);
    }
    let d_qkv = vjp(&op, &[Want::Write], &[&qkv], &outs, &outs[0]);
    assert!(d_qkv[0].as_slice::<f32>().iter().all(|x| x.is_finite()));
}

#[test]
fn errors_name_what_is_wrong() {
    let op = |window| SelfAttention { heads: 2, sees: Sees::Window(window) };
    let heads = "qkv is f32[1, 5, 16], its last size must be a multiple of 6 heads";
    refuses(&op(4), "f32[1, 5, 16]", heads);
    refuses(&op(4), "f32[5, 12]", "qkv is f32[5, 12], must have 3 dimensions");
    let padded = SelfAttention { heads: 2, sees: Sees::Text };
    refuses(&padded, "f32[3, 5, 12] i32[2]", "lengths is i32[2], must be i32[3]");
    refuses(&op(0), "f32[1, 5, 12]", "a window of 0 tokens sees nothing, must be at least 1");
}

#[test]
fn cost_counts_the_pairs_that_are_seen() {
    let qkv = Spec::new(DType::F32, &[2, 5, 3 * 8]);
    // In the window, one token sees 1, one 2, three 3.
    for (sees, pairs) in [(Sees::Window(3), 1 + 2 + 3 * 3), (Sees::Past, 1 + 2 + 3 + 4 + 5), (Sees::All, 5 * 5)] {
        let cost = SelfAttention { heads: 2, sees }.cost(&[qkv], Pass::Forward);
        assert_eq!(cost.flops, 2 * 2 * pairs * (4 * 4 + 4));
        assert_eq!(cost.bytes, 4 * 2 * 5 * (24 + 8 + 2));
    }
}

/// Without queries every probability is one over the number of keys, and sums of small integers are exact in bf16 too: a
/// wrong mask would show.
#[test]
fn rounded_products_see_the_same_keys() {
    let windows = [(275, 70, 64), (275, 256, 32), (40, 64, 64), (290, 64, 33)];
    let windows = windows.map(|(tokens, window, head_dim)| (tokens, Sees::Window(window), head_dim));
    let others = [(275, Sees::Past, 32), (275, Sees::All, 64), (64, Sees::All, 33), (290, Sees::All, 32)];
    for (tokens, sees, head_dim) in windows.into_iter().chain(others) {
        let value = |token: usize, column: usize| (token * 7 + column * 3) % 16;
        let mut qkv = vec![0.0f32; tokens * 3 * head_dim];
        for (token, row) in qkv.chunks_mut(3 * head_dim).enumerate() {
            (0..head_dim).for_each(|column| row[2 * head_dim + column] = value(token, column) as f32);
        }
        let (qkv, op) = (Buffer::from_slice(&[1, tokens, 3 * head_dim], &qkv), SelfAttention { heads: 1, sees });
        let outs = Eager { device: &Device::CPU.with(Products::Bf16), op: &op }.forward(&[qkv]);
        for (token, y) in outs[0].as_slice::<f32>().chunks(head_dim).enumerate() {
            let seen = match sees {
                Sees::Window(window) => (token + 1).saturating_sub(window)..token + 1,
                Sees::Past => 0..token + 1,
                Sees::All | Sees::Text => 0..tokens,
            };
            for (column, &y) in y.iter().enumerate() {
                let sum: usize = seen.clone().map(|key| value(key, column)).sum();
                assert_eq!(y, sum as f32 * (1.0 / seen.len() as f32), "token {token}, column {column}");
            }
        }
    }
}
