use super::*;
use crate::testing::{check, check_all, forward, refuses};
use engine::DType;

/// x as [outer, n] of rows with `inner` elements.
fn indexed(x: &[f64], n: usize, inner: usize) -> impl Fn(usize, usize, usize) -> f64 {
    move |o, i, j| x[(o * n + i) * inner + j]
}

/// All indices of a tensor of these sizes, in order.
fn indices(sizes: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [_, n, inner] = sizes;
    (0..sizes.iter().product()).map(move |i| [i / (n * inner), i / inner % n, i % inner])
}

#[test]
fn every_case_matches_its_formula() {
    // Rows and parts of rows longer than a chunk of the parallel loop.
    let large = Sizes { batch: 2, tokens: 300, heads: 3, head_dim: 70, latents: 50, ffn: 33, window: 1, vocab: 2 };
    check_all(cases, &[large], |s, number, x| {
        let (b, t, k, d, f) = (s.batch, s.tokens, s.latents, s.dim(), s.ffn);
        let at = |[o, i, j]: [usize; 3], n, inner| indexed(&x[0], n, inner)(o, i, j);
        match number {
            0 => indices([b, k, d]).map(|i| at(i, 2 * k, d)).collect(),
            1 => indices([b, k, d]).map(|[o, i, j]| at([o, i + k, j], 2 * k, d)).collect(),
            2 => indices([b, t, d]).map(|[o, i, j]| at([o, i, j + d], t, 3 * d)).collect(),
            3 => indices([b, t + 3, d])
                .map(|[o, i, j]| if (2..t + 2).contains(&i) { at([o, i - 2, j], t, d) } else { 0.0 })
                .collect(),
            4 => indices([b, t, f + 1]).map(|[o, i, j]| if j < f { at([o, i, j], t, f) } else { 0.0 }).collect(),
            5 => indices([b, k + t, d])
                .map(|[o, i, j]| if i < k { at([o, i, j], k, d) } else { indexed(&x[1], t, d)(o, i - k, j) })
                .collect(),
            _ => indices([b, t, d + 1 + f])
                .map(|[o, i, j]| match j {
                    _ if j < d => at([o, i, j], t, d),
                    _ if j == d => indexed(&x[1], t, 1)(o, i, 0),
                    _ => indexed(&x[2], t, f)(o, i, j - d - 1),
                })
                .collect(),
        }
    });
}

/// The outermost axis, vectors, and sixteen inputs.
#[test]
fn every_axis_and_rank() {
    let whole = |dims: &[usize]| vec![Input::normal(dims)];
    check(&Case::new("rows", Slice { axis: 0, start: 1, len: 2 }, whole(&[4, 3, 2, 5])), |x| x[0][30..90].to_vec());
    check(&Case::new("vector", Slice { axis: 0, start: 2, len: 1 }, whole(&[7])), |x| vec![x[0][2]]);
    check(&Case::new("vector", Pad { axis: 0, before: 3, after: 0 }, whole(&[2])), |x| [&[0.0; 3], &x[0][..]].concat());
    check(&Case::new("nothing", Pad { axis: 1, before: 0, after: 0 }, whole(&[2, 3])), |x| x[0].clone());
    let sizes: Vec<usize> = (1..=16).collect();
    let ins = sizes.iter().map(|&n| Input::normal(&[n, 2])).collect();
    check(&Case::new("sixteen", Concat { axis: 0, sizes }, ins), |x| x.concat());
    check(&Case::new("one", Concat { axis: 1, sizes: vec![3] }, whole(&[2, 3])), |x| x[0].clone());
}

#[test]
fn joined_slices_are_the_tensor() {
    let x = crate::testing::normal(DType::F32, &[3, 11, 7], 1);
    for axis in 0..3 {
        let n = x.shape().dims()[axis];
        let sizes = vec![1, n - 2, 1];
        let parts: Vec<Buffer> = [(0, 1), (1, n - 2), (n - 1, 1)]
            .into_iter()
            .map(|(start, len)| forward(&Slice { axis, start, len }, &[&x]).remove(0))
            .collect();
        assert!(forward(&Concat { axis, sizes }, &parts)[0].as_bytes() == x.as_bytes(), "axis {axis}");
    }
}

#[test]
fn parts_must_exist() {
    let slice = |axis, start, len| Slice { axis, start, len };
    let must = |range| format!("x is f32[2, 5, 3], must contain {range} on axis 1, at least one index");
    refuses(&slice(1, 4, 2), "f32[2, 5, 3]", &must("4..6"));
    refuses(&slice(1, 1, 0), "f32[2, 5, 3]", &must("1..1"));
    refuses(&slice(2, 0, 1), "f32[2, 5]", "x is f32[2, 5], must have an axis 2");
    refuses(&Pad { axis: 1, before: 1, after: 1 }, "f32[2]", "x is f32[2], must have an axis 1");
    let concat = |sizes: &[usize]| Concat { axis: 1, sizes: sizes.to_vec() };
    refuses(&concat(&[5, 3]), "f32[2, 5] f32[3, 3]", "x1 is f32[3, 3], must be f32[2, 3]");
    refuses(&concat(&[5, 3]), "f32[2, 4] f32[2, 3]", "x0 is f32[2, 4], must be f32[2, 5]");
    refuses(&concat(&[]), "", "joins 0 inputs, must join 1 to 16");
    let all = "f32[2, 1]".repeat(16);
    refuses(&concat(&[1; 17]), &all, "joins 17 inputs, must join 1 to 16");
    assert!(slice(1, 3, 2).infer(&[Spec::new(DType::F32, &[2, 5, 3])]).is_ok());
}
