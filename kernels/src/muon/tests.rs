use super::*;
use crate::testing::{apply, distance, normal, same_bits};

/// Rows, columns and blocks: wide, tall and square blocks, a row, a column, and more numbers than a chunk.
const SHAPES: [[usize; 3]; 7] = [[6, 11, 2], [42, 9, 3], [16, 16, 1], [1, 5, 1], [4, 1, 1], [10, 900, 1], [20, 900, 2]];

/// A matrix as rows.
type Rows = Vec<Vec<f64>>;

fn rows_of(x: &[f64], cols: usize) -> Rows {
    x.chunks(cols).map(<[f64]>::to_vec).collect()
}

fn transposed(x: &Rows) -> Rows {
    (0..x[0].len()).map(|j| x.iter().map(|row| row[j]).collect()).collect()
}

fn product(x: &Rows, y: &Rows) -> Rows {
    let y = transposed(y);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).rev().map(|(a, b)| a * b).sum();
    x.iter().map(|x| y.iter().map(|y| dot(x, y)).collect()).collect()
}

/// A textbook's order: X·Xᵀ whatever the shape, and a·X + b·(XXᵀ)X + c·(XXᵀ)²X one term after the other.
fn textbook_orthogonal(u: &Rows) -> Rows {
    let norm = u.iter().flatten().map(|u| u * u).sum::<f64>().sqrt();
    let mut x: Rows = u.iter().map(|row| row.iter().map(|u| u / norm).collect()).collect();
    for _ in 0..5 {
        let cube = product(&product(&x, &transposed(&x)), &x);
        let fifth = product(&product(&x, &transposed(&x)), &cube);
        for ((x, cube), fifth) in x.iter_mut().zip(&cube).zip(&fifth) {
            for ((x, cube), fifth) in x.iter_mut().zip(cube).zip(fifth) {
                *x = 3.4445 * *x - 4.7750 * cube + 2.0315 * fifth;
            }
        }
    }
    x
}

/// One step on w and m, for a clipped gradient.
fn textbook(w: &mut [f64], m: &mut [f64], g: &[f64], [rows, cols, blocks]: [usize; 3], rate: f64) {
    m.iter_mut().zip(g).for_each(|(m, g)| *m += 0.05 * (g - *m));
    let u: Vec<f64> = m.iter().zip(g).map(|(m, g)| 0.95 * m + 0.05 * g).collect();
    let size = rows / blocks * cols;
    for (w, u) in w.chunks_mut(size).zip(u.chunks(size)) {
        let x = textbook_orthogonal(&rows_of(u, cols)).concat();
        let scale = 0.2 * ((rows / blocks).max(cols) as f64).sqrt();
        w.iter_mut().zip(x).for_each(|(w, x)| *w -= rate * (0.1 * *w + scale * x));
    }
}

/// Three steps at `norms` = 9, so that the gradient is clipped to a third of its size; w and m.
fn learn(dtype: DType, shape @ [rows, cols, blocks]: [usize; 3]) -> Vec<Buffer> {
    let mut state = [normal(dtype, &[rows, cols], 0), Buffer::new(Spec::new(dtype, &[rows, cols]))];
    let norms = Buffer::from_f64(dtype, &[2], &[4.0, 5.0]);
    for t in 1..=3 {
        let schedule = Buffer::from_f64(dtype, &[2], &[0.25, f64::from(t)]);
        let muon = Muon { blocks, weight_decay: 0.1, clip: 1.0 };
        apply(&muon, &[&normal(dtype, &shape[..2], t), &norms, &schedule], &mut state);
    }
    state.into()
}

#[test]
fn matches_the_textbook() {
    for shape in SHAPES {
        let mut w = normal(DType::F64, &shape[..2], 0).to_f64();
        let mut m = vec![0.0; w.len()];
        for t in 1..=3 {
            let g = normal(DType::F64, &shape[..2], t).to_f64();
            let g: Vec<f64> = g.iter().map(|g| g / (3.0 + 1e-6)).collect();
            textbook(&mut w, &mut m, &g, shape, 0.25);
        }
        let doubles = learn(DType::F64, shape);
        let singles = same_bits("three steps", || learn(DType::F32, shape));
        for ((double, single), expected) in doubles.iter().zip(&singles).zip([w, m]) {
            assert!(distance(&double.to_f64(), &expected) < 1e-11, "{shape:?}");
            assert!(distance(&single.to_f64(), &double.to_f64()) < 1e-4, "{shape:?}");
        }
    }
}

/// From weights of zero, a step is the orthogonal matrix times a factor.
fn step(shape @ [rows, cols, blocks]: [usize; 3], grad: &Buffer, norm: f32) -> [Buffer; 2] {
    let mut state = [(); 2].map(|()| Buffer::new(Spec::new(DType::F32, &[rows, cols])));
    let [norms, schedule] = [Buffer::from_slice(&[1], &[norm]), Buffer::from_slice(&[2], &[1.0f32, 1.0])];
    let muon = Muon { blocks, weight_decay: 0.0, clip: 1.0 };
    assert_eq!(grad.shape().dims(), &shape[..2]);
    apply(&muon, &[grad, &norms, &schedule], &mut state);
    state
}

/// The squares of the singular values of a block are about 1: no direction of X·Xᵀ is far from the others, and the spread
/// of all, ‖X·Xᵀ − I‖ / √n, is at most about that of a single value at 0.7.
#[test]
fn updates_are_nearly_orthogonal() {
    for shape @ [rows, cols, blocks] in SHAPES {
        let [w, _] = step(shape, &normal(DType::F32, &shape[..2], 5), 1.0);
        let rows = rows / blocks;
        let scale = -0.2 * (rows.max(cols) as f64).sqrt();
        for (number, block) in w.to_f64().chunks(rows * cols).enumerate() {
            let x = rows_of(&block.iter().map(|w| w / scale).collect::<Vec<_>>(), cols);
            let x = if rows <= cols { x } else { transposed(&x) };
            let gram = product(&x, &transposed(&x));
            let n = gram.len();
            let spread = |i: usize, j: usize| (gram[i][j] - f64::from(u8::from(i == j))).powi(2);
            let spread: f64 = (0..n * n).map(|at| spread(at / n, at % n)).sum();
            assert!((spread / n as f64).sqrt() < 0.6, "{shape:?}, block {number}: {spread}");
            for i in 0..n as u32 {
                let v = rows_of(&normal(DType::F64, &[n, 1], 50 + i).to_f64(), 1);
                let square = v.concat().iter().map(|v| v * v).sum::<f64>();
                let quotient = product(&transposed(&v), &product(&gram, &v))[0][0] / square;
                assert!((0.36..1.69).contains(&quotient), "{shape:?}, block {number}: {quotient}");
            }
        }
    }
}

#[test]
fn a_gradient_of_zeros_moves_nothing() {
    for shape in SHAPES {
        let state = step(shape, &Buffer::new(Spec::new(DType::F32, &shape[..2])), 0.0);
        assert!(state.iter().all(|b| b.to_f64().iter().all(|&x| x == 0.0)), "{shape:?}");
    }
}

#[test]
fn a_norm_that_is_not_finite_changes_nothing() {
    for norm in [f32::NAN, f32::INFINITY] {
        let state = step([2, 3, 1], &normal(DType::F32, &[2, 3], 1), norm);
        assert!(state.iter().all(|b| b.to_f64() == [0.0; 6]), "{norm}");
    }
}

/// Counted by hand for two blocks of [2, 3]: 13 per number, and five times 4·2·6 + 2·8 + 3·4 + 2.
#[test]
fn cost_is_that_of_the_products() {
    let of = |dims: &[usize]| Spec::new(DType::F32, dims);
    let (ins, state) = ([of(&[4, 3]), of(&[7]), of(&[2])], [of(&[4, 3]); 2]);
    let muon = Muon { blocks: 2, weight_decay: 0.1, clip: 1.0 };
    assert_eq!(muon.cost(&ins, &state), Cost { flops: 2 * (13 * 6 + 5 * 78), bytes: 5 * 48 });
}
