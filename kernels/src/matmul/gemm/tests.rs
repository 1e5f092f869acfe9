use super::*;
use crate::testing::{random, thread_counts};

/// The definition: one chain of fused multiply-adds over k for each element.
fn naive<T: Real>(c: MatMut<'_, T>, a: Mat<'_, T>, b: Mat<'_, T>, accumulate: Want) {
    for i in 0..c.rows {
        for j in 0..c.cols {
            let c = &mut c.data[i * c.row_stride + j];
            let start = if accumulate == Want::Write { T::ZERO } else { *c };
            *c = (0..a.cols).fold(start, |sum, k| Real::mul_add(a.at(i, k), b.at(k, j), sum));
        }
    }
}

/// A factor in memory: along its rows, along its columns, and with gaps everywhere.
fn views<T: Copy>(data: &[T], rows: usize, cols: usize) -> [Mat<'_, T>; 3] {
    let along_columns = Mat::new(data, cols, rows).transposed();
    [Mat::new(data, rows, cols), along_columns, Mat::with_strides(data, rows, cols, 2 * cols + 1, 2)]
}

/// Sizes: empty; around the heights and widths of the kernels, panels, blocks of k and of A, and tiles; with rows of B
/// read in place.
const SIZES: [[usize; 3]; 21] = [
    [0, 3, 4],
    [3, 0, 4],
    [3, 4, 0],
    [0, 0, 0],
    [1, 1, 1],
    [1, 70, 40],
    [2, 3, 15],
    [3, 17, 16],
    [5, 16, 31],
    [2, 3, 2051],
    [6, 385, 33],
    [7, 31, 64],
    [13, 8, 47],
    [14, 256, 32],
    [15, 300, 65],
    [20, 777, 48],
    [27, 10, 96],
    [29, 33, 100],
    [61, 513, 131],
    [100, 20, 200],
    [149, 400, 19],
];

fn matches_naive<T: Real>() {
    for [m, k, n] in SIZES {
        let (a, b, old) =
            (random::<T>(2 * (m + 1) * (k + 1), 1), random(2 * (k + 1) * (n + 1), 2), random(m * (n + 3), 3));
        for (a, b) in views(&a, m, k).into_iter().flat_map(|a| views(&b, k, n).map(|b| (a, b))) {
            let place = format!("[{m}, {k}, {n}], columns {} and {} apart", a.col_stride, b.col_stride);
            let mut packed = vec![T::ZERO; packed_len(k, n)];
            pack_b(b, &mut packed);
            // With gaps between the rows of C, which must not change.
            for (accumulate, stride) in [(Want::Write, n + 3), (Want::Add, n)] {
                let mut expected = old.clone();
                naive(MatMut::with_stride(&mut expected, m, n, stride), a, b, accumulate);
                let mut got = old.clone();
                gemm(MatMut::with_stride(&mut got, m, n, stride), a, b, accumulate);
                assert!(got == expected, "{place}, {accumulate:?}");
                let mut got = old.clone();
                gemm(MatMut::with_stride(&mut got, m, n, stride), a, Factor::Packed(&packed), accumulate);
                assert!(got == expected, "packed {place}, {accumulate:?}");
                if accumulate == Want::Add {
                    let mut got = vec![T::ZERO; m * n];
                    gemm_onto(MatMut::new(&mut got, m, n), Mat::new(&old, m, n), a, b);
                    assert!(got == expected[..m * n], "onto {place}");
                }
            }
        }
    }
}

#[test]
fn every_level_and_number_of_threads_matches_the_definition_bit_for_bit() {
    simd::for_each_level(|level| {
        for &threads in thread_counts(level) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| {
                matches_naive::<f32>();
                matches_naive::<f64>();
            });
        }
    });
}

#[test]
fn nan_and_infinity_reach_their_row_and_column_only() {
    let [m, k, n] = [20, 30, 40];
    let (mut a, mut b) = (random::<f32>(m * k, 1), random::<f32>(k * n, 2));
    a[3 * k + 29] = f32::NAN;
    b[17 * n + 39] = f32::INFINITY;
    simd::for_each_level(|_| {
        let mut c = vec![f32::NAN; m * n];
        gemm(MatMut::new(&mut c, m, n), Mat::new(&a, m, k), Mat::new(&b, k, n), Want::Write);
        for (at, x) in c.iter().enumerate() {
            assert_eq!(x.is_nan(), at / n == 3);
            assert_eq!(x.is_infinite(), at / n != 3 && at % n == 39);
        }
    });
}

#[test]
#[should_panic(expected = "sizes of C[m, n] = A[m, k]·B[k, n]")]
fn sizes_must_agree() {
    gemm(MatMut::new(&mut [0.0f32; 4], 2, 2), Mat::new(&[0.0; 6], 2, 3), Mat::new(&[0.0; 4], 2, 2), Want::Write);
}
