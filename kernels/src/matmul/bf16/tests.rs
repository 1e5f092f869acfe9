use super::*;
use crate::testing::thread_counts;
use engine::rng::Stream;

/// Sizes around the edges of tiles, strips and blocks of k, empty ones, and one that threads share.
const SIZES: [[usize; 3]; 12] = [
    [0, 3, 4],
    [3, 4, 0],
    [3, 0, 4],
    [1, 1, 1],
    [1, 70, 40],
    [15, 31, 17],
    [16, 32, 16],
    [33, 33, 31],
    [32, 64, 64],
    [7, 300, 35],
    [70, 20, 100],
    [70, 160, 140],
];

/// Sign and mantissa at random, exponents between two powers of two; every fourth number is one of `special`.
fn numbers(len: usize, site: u32, [least, most]: [i32; 2], special: &[f32]) -> Vec<f32> {
    let number = |i: u32| {
        let [a, b, c, _] = Stream::new(23, site).words(i);
        if !special.is_empty() && c % 4 == 0 {
            return special[(c / 4) as usize % special.len()];
        }
        let exponent = least + (b % (most - least + 1) as u32) as i32 + 127;
        // Exponent 0 makes subnormal numbers.
        f32::from_bits(a & 0x807F_FFFF | (exponent.max(0) as u32) << 23)
    };
    (0..len as u32).map(number).collect()
}

/// What A, B and C hold: common numbers; sums that become subnormal, or just not; subnormal factors and C; sums that overflow;
/// infinity, NaN and zeros.
fn fills(sizes: [usize; 3]) -> Vec<[Vec<f32>; 3]> {
    let special = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, f32::MAX, f32::from_bits(0xFF80_0001)];
    let tiny = [f32::from_bits(0x007F_FFFF), f32::from_bits(0x8000_0001), f32::MIN_POSITIVE, 1.0];
    let kinds: [([[i32; 2]; 3], &[f32]); 6] = [
        ([[-3, 1], [-3, 1], [-3, 1]], &[]),
        ([[-66, -60], [-66, -60], [-127, -124]], &[]),
        ([[-127, 0], [-4, 3], [-127, -120]], &tiny),
        ([[60, 64], [60, 63], [120, 127]], &[]),
        ([[-3, 1], [-3, 1], [-3, 1]], &special[..6]),
        ([[-127, 127], [-127, 127], [-127, 127]], &special),
    ];
    let fill = |(exponents, special): ([[i32; 2]; 3], &[f32])| {
        std::array::from_fn(|i| numbers(sizes[i], i as u32, exponents[i], special))
    };
    kinds.into_iter().map(fill).collect()
}

/// The definition for one element of C, on unpacked factors.
fn element(a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32, k: usize, start: f32) -> f32 {
    (0..k).step_by(SIDE).fold(start, |c, first| {
        let chain = |odd: usize| {
            (first + odd..first + SIDE).step_by(2).fold(0.0, |sum, k_at| match k_at < k {
                true => scalar::mul_add(simd::round(a(k_at)), simd::round(b(k_at)), sum),
                false => scalar::mul_add(bf16::ZERO, bf16::ZERO, sum),
            })
        };
        scalar::flush(scalar::flush(c) + scalar::flush(chain(0) + chain(1)))
    })
}

fn same(got: &[f32], expected: &[f32], place: &str) {
    assert_eq!(got.len(), expected.len(), "{place}");
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        let equal = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
        assert!(equal, "{place}: element {at} is {got:e}, must be {expected:e}");
    }
}

/// The levels to test; says if AMX is not among them.
fn levels(check: impl Fn(Level)) {
    simd::for_each_level(check);
    if !simd::supported().contains(&Level::Amx) {
        println!("skipped amx: this machine does not have it");
    }
}

/// Transposes [rows, cols].
fn turned(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|at| x[at % rows * cols + at / rows]).collect()
}

#[test]
fn every_level_and_number_of_threads_matches_the_definition_bit_for_bit() {
    for [m, k, n] in SIZES {
        let stride = n + 3;
        for (kind, [a, b, old]) in fills([m * k, k * n, m * stride]).into_iter().enumerate() {
            let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
            let expect = |start: &dyn Fn(f32) -> f32| {
                let mut c = old.clone();
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let c = &mut c[i * stride + j];
                    *c = element(|k_at| a[i * k + k_at], |k_at| b[k_at * n + j], k, start(*c));
                }
                c
            };
            let [written, added] = [expect(&|_| 0.0), expect(&|c| c)];
            levels(|level| {
                for &threads in thread_counts(level) {
                    let place = format!("{level}, {threads} threads, [{m}, {k}, {n}], kind {kind}");
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
                    pool.install(|| {
                        let mut packed = [vec![bf16::NAN; packed_len(k, n)], vec![bf16::NAN; packed_len(k, n)]];
                        let mut left = vec![bf16::NAN; packed_len(k, m)];
                        pack(Mat::new(&b, k, n), &mut packed[0]);
                        pack(Mat::new(&b_turned, n, k).transposed(), &mut packed[1]);
                        for (a, b) in
                            [Mat::new(&a, m, k), Mat::new(&a_turned, k, m).transposed()].into_iter().zip(&packed)
                        {
                            for (want, expected) in [(Want::Write, &written), (Want::Add, &added)] {
                                let mut got = old.clone();
                                product(MatMut::with_stride(&mut got, m, n, stride), a, b, want);
                                // The gaps between rows stay as they are.
                                same(&got, expected, &place);
                                let mut got = old.clone();
                                let a = pack_left(a, &mut left);
                                product(MatMut::with_stride(&mut got, m, n, stride), a, b, want);
                                same(&got, expected, &format!("{place}, A packed"));
                            }
                            let mut got = vec![f32::NAN; m * n];
                            product_onto(MatMut::new(&mut got, m, n), Mat::with_strides(&old, m, n, stride, 1), a, b);
                            let rows = added.chunks(stride).take(m).flat_map(|row| &row[..n]);
                            same(&got, &rows.copied().collect::<Vec<_>>(), &format!("{place}, onto"));
                        }
                    });
                }
            });
        }
    }
}

/// 2⁻¹²⁶ − 2⁻¹⁵⁰ rounds to the smallest normal number only because subnormal numbers have fewer bits: the result is zero.
/// 2⁻¹²⁶ − 2⁻¹⁵¹ does so with 24 bits, too, and stays.
#[test]
fn a_sum_is_small_if_it_is_with_all_bits() {
    let power = |exponent: i32| f32::from_bits(((exponent + 127) as u32) << 23);
    let smallest = f32::MIN_POSITIVE;
    for (exponent, expected) in [(-150, 0.0), (-151, smallest), (-152, smallest), (-149, 0.0)] {
        let (a, b) = (power(-100), -power(exponent + 100));
        assert_eq!(scalar::mul_add(bf16::from_f32(a), bf16::from_f32(b), smallest), expected, "2^{exponent}");
        // The same by every level: chains 2⁻¹²⁶ and then less.
        let (a, b) = ([power(-60), 0.0, a], [power(-66), 0.0, b]);
        levels(|level| {
            let mut packed = vec![bf16::ZERO; packed_len(3, 1)];
            pack(Mat::new(&b, 3, 1), &mut packed);
            let mut c = [f32::NAN];
            product(MatMut::new(&mut c, 1, 1), Mat::new(&a, 1, 3), &packed, Want::Write);
            assert_eq!(c[0], expected, "{level}, 2^{exponent}");
        });
    }
}

#[test]
fn rounding_is_to_nearest_even_without_subnormal_numbers() {
    let special =
        [0, 1, 0x007F_FFFF, 0x0080_0000, 0x7F7F_FFFF, 0x7F80_0000, 0x7F80_0001, 0x7FFF_FFFF, 0x3F80_8000, 0x3F81_8000];
    let random = (0..4096).flat_map(|i| Stream::new(5, 1).words(i));
    let bits: Vec<u32> = special.into_iter().chain(random).flat_map(|x| [x, x | 0x8000_0000]).collect();
    let x: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
    let expected = |x: f32| if x.is_subnormal() { bf16::from_f32(0.0_f32.copysign(x)) } else { bf16::from_f32(x) };
    levels(|level| {
        let mut packed = vec![bf16::ZERO; packed_len(x.len(), 1)];
        pack(Mat::new(&x, x.len(), 1), &mut packed);
        for (k, &x) in x.iter().enumerate() {
            let got = packed[k / SIDE * SIDE * SIDE + k % SIDE / 2 * SIDE + k % 2];
            for got in [got, simd::round(x)] {
                assert!(
                    got == expected(x) && got.is_sign_negative() == x.is_sign_negative() || got.is_nan() && x.is_nan(),
                    "{level}: {x:e}"
                );
            }
        }
    });
}

#[test]
fn infinity_and_nan_reach_their_row_and_column_only() {
    let [m, k, n] = [40, 70, 50];
    let (mut a, mut b) = (numbers(m * k, 1, [-2, 2], &[]), numbers(k * n, 2, [-2, 2], &[]));
    a[3 * k + 69] = f32::NAN;
    b[17 * n + 49] = f32::INFINITY;
    levels(|level| {
        let (mut c, mut packed) = (vec![f32::NAN; m * n], vec![bf16::ZERO; packed_len(k, n)]);
        pack(Mat::new(&b, k, n), &mut packed);
        product(MatMut::new(&mut c, m, n), Mat::new(&a, m, k), &packed, Want::Write);
        for (at, x) in c.iter().enumerate() {
            assert_eq!(x.is_nan(), at / n == 3, "{level}");
            assert_eq!(x.is_infinite(), at / n != 3 && at % n == 49, "{level}");
        }
    });
}

/// The processor's state afterwards is that before.
#[test]
fn subnormal_numbers_exist_after_a_product() {
    let half = std::hint::black_box(f32::MIN_POSITIVE);
    levels(|level| {
        let mut packed = vec![bf16::ZERO; packed_len(3, 4)];
        pack(Mat::new(&[1.0f32; 12], 3, 4), &mut packed);
        product(MatMut::new(&mut [0.0f32; 8], 2, 4), Mat::new(&[1.0; 6], 2, 3), &packed, Want::Write);
        assert!(std::hint::black_box(half * 0.5) > 0.0, "{level}");
    });
}

#[test]
#[should_panic(expected = "sizes of C[m, n] = A[m, k]·B[k, n]")]
fn sizes_must_agree() {
    product(MatMut::new(&mut [0.0f32; 4], 2, 2), Mat::new(&[0.0; 6], 2, 3), &[bf16::ZERO; 1], Want::Write);
}

/// With several blocks of B for the tiles, and of A for the lanes.
#[test]
fn a_product_larger_than_the_caches_matches_the_definition() {
    let [m, k, n] = [33, 9000, 33];
    let (a, b) = (numbers(m * k, 1, [-3, 1], &[]), numbers(k * n, 2, [-3, 1], &[]));
    let expect = |at: usize| element(|p| a[at / n * k + p], |p| b[p * n + at % n], k, 0.0);
    let expected: Vec<f32> = (0..m * n).map(expect).collect();
    let mut packed = vec![bf16::ZERO; packed_len(k, n)];
    pack(Mat::new(&b, k, n), &mut packed);
    levels(|level| {
        let mut got = vec![f32::NAN; m * n];
        product(MatMut::new(&mut got, m, n), Mat::new(&a, m, k), &packed, Want::Write);
        same(&got, &expected, &level.to_string());
    });
}
