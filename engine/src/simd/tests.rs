//! Every level against the scalar one, and the scalar one against the standard library.

use super::*;
use crate::rng::Stream;

/// Both zeros, subnormals, the ends of the range, infinities, NaN, the thresholds of exp; then random numbers of every
/// magnitude.
fn numbers<T: Real>() -> Vec<T> {
    let small = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, -1e-45, 5e-324, 1e-39];
    let ends = [f64::MIN_POSITIVE, f64::MAX, f64::MIN, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let of_exp = [88.722_83, 88.722_84, 89.5, -87.5, -103.9, -104.1, -745.1, -745.2];
    let of_exp_64 = [709.782_712_893_383_9, 709.782_712_893_384_1];
    let stream = Stream::new(11, 4);
    // Miri runs a thousand times slower.
    let random = (0..if cfg!(miri) { 270 } else { 1000 }).map(|i| stream.normal(i) * 2f64.powi(i as i32 % 41 - 20));
    [&small[..], &ends, &of_exp, &of_exp_64].concat().into_iter().chain(random).map(T::from_f64).collect()
}

/// The bits, with one value for all NaNs, because their payload is unspecified.
fn bits<T: Real>(x: T) -> u64 {
    let x = x.to_f64();
    if x.is_nan() { u64::MAX } else { x.to_bits() }
}

/// Every operation of lanes, applied to windows of the numbers, as bits.
struct EveryOp<'a, T>(&'a [T]);

impl<T: Real> Kernel for EveryOp<'_, T> {
    type Output = Vec<u64>;

    #[inline(always)]
    fn run<I: Isa>(self) -> Vec<u64> {
        let x = self.0;
        let mut all = Vec::new();
        // Strides that are coprime to the length eventually pair every number with every other.
        for start in 0..x.len() {
            let window = |stride: usize| -> [T; LANES] { std::array::from_fn(|i| x[(start + i * stride) % x.len()]) };
            let (wa, wb, wc) = (window(1), window(7), window(31));
            let load = T::Lanes::<I>::load;
            let (a, b, c) = (load(&wa), load(&wb), load(&wc));
            let splat = T::Lanes::<I>::splat(wb[3]);
            let partial = T::Lanes::<I>::load_partial(&wa[..start % 17], wb[0]);
            let ops = [
                T::Lanes::<I>::zero(),
                splat,
                partial,
                a.add(b),
                a.sub(b),
                a.mul(b),
                a.div(b),
                a.max(b),
                a.min(b),
                a.sqrt(),
                a.neg(),
                a.mul_add(b, c),
                a.exp(),
                a.ln(),
                a.select(b, c, a),
            ];
            for op in ops {
                all.extend(op.to_array().map(bits));
            }
            all.push(bits(a.sum()));
            all.push(bits(a.max_lane()));
            let mut out = wc;
            a.store_partial(&mut out[..start % 17]);
            let mut half = wc;
            a.store_half(&mut half);
            all.extend(half.map(bits));
            all.extend(out.map(bits));
            let (p, q) = (&x[..start], &x[x.len() - start..]);
            let reduced = [sum::<I, T>(p), max::<I, T>(p), sum_squares::<I, T>(p), dot::<I, T>(p, q)];
            all.extend(reduced.map(bits));
        }
        let mut y = x[3..].to_vec();
        axpy::<I, T>(x[40], &x[..y.len()], &mut y);
        all.extend(y.into_iter().map(bits));
        let rows = std::array::from_fn(|i| T::Lanes::<I>::load(&x[i * LANES..]));
        all.extend(T::Lanes::<I>::transpose(rows).into_iter().flat_map(|row| row.to_array().map(bits)));
        all
    }
}

#[test]
fn every_level_gives_the_bits_of_scalar() {
    fn check<T: Real>() {
        let x = numbers::<T>();
        let expected = EveryOp(&x).run::<Scalar>();
        let mut levels = Vec::new();
        for_each_level(|level| {
            let got = dispatch(EveryOp(&x));
            assert_eq!(got.len(), expected.len());
            if let Some(i) = (0..got.len()).find(|&i| got[i] != expected[i]) {
                panic!("{level}, {}, result {i}: {:#x} instead of {:#x}", T::DTYPE, got[i], expected[i]);
            }
            levels.push(level);
        });
        assert_eq!(levels, supported());
    }
    check::<f32>();
    check::<f64>();
}

/// The scalar lanes against plain arithmetic, so that the specification itself is checked.
#[test]
fn scalar_lanes_are_plain_arithmetic() {
    type L = <f32 as Real>::Lanes<Scalar>;
    let x = numbers::<f32>();
    let [a, b, c, ..] = x[25..].as_chunks::<LANES>().0 else { panic!("fewer than three chunks") };
    let (la, lb, lc) = (L::load(a), L::load(b), L::load(c));
    for i in 0..LANES {
        let (p, q, r) = (a[i], b[i], c[i]);
        assert_eq!(la.add(lb).to_array()[i], p + q);
        assert_eq!(la.sub(lb).to_array()[i], p - q);
        assert_eq!(la.mul(lb).to_array()[i], p * q);
        assert_eq!(la.div(lb).to_array()[i], p / q);
        assert_eq!(la.max(lb).to_array()[i], f32::max(p, q));
        assert_eq!(la.min(lb).to_array()[i], f32::min(p, q));
        assert_eq!(la.neg().to_array()[i], -p);
        assert_eq!(la.mul(la).sqrt().to_array()[i], (p * p).sqrt());
        assert_eq!(la.mul_add(lb, lc).to_array()[i], f32::mul_add(p, q, r));
        assert_eq!(bits(la.exp().to_array()[i]), bits(Real::exp(p)));
        assert_eq!(bits(la.ln().to_array()[i]), bits(Real::ln(p)));
        assert_eq!(la.select(lb, lc, la).to_array()[i], if p > q { r } else { p });
    }
    let tree = |mut v: Vec<f32>| {
        while v.len() > 1 {
            let half = v.len() / 2;
            v = (0..half).map(|i| v[i] + v[i + half]).collect();
        }
        v[0]
    };
    assert_eq!(la.sum(), tree(a.to_vec()));
    assert_eq!(la.max_lane(), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let columns = L::transpose(std::array::from_fn(|i| L::load(&x[25 + i * LANES..])));
    assert!((0..256).all(|i| columns[i / 16].to_array()[i % 16] == x[25 + i % 16 * 16 + i / 16]));
    assert_eq!(L::load_partial(&a[..3], 7.0).to_array()[..5], [a[0], a[1], a[2], 7.0, 7.0]);
    assert_eq!(dot::<Scalar, f32>(&a[..3], &b[..3]), a[1].mul_add(b[1], 0.0) + (a[0] * b[0] + a[2] * b[2]));
    assert_eq!((sum::<Scalar, f32>(&[]), max::<Scalar, f32>(&[])), (0.0, f32::NEG_INFINITY));
}

/// |exp − exact| in units of the last place of the exact value's binade, against f64.
#[test]
fn exp_f32_is_within_one_ulp() {
    let mut worst = 0.0f64;
    // Every 97th number from the smallest magnitude to beyond overflow, of both signs.
    for raw in (0..0x42D2_0000u32).step_by(97) {
        for x in [f32::from_bits(raw), -f32::from_bits(raw)] {
            let (got, exact) = (Real::exp(x), f64::from(x).exp());
            if exact > f64::from(f32::MAX) {
                assert!(got == f32::INFINITY || got == f32::MAX, "exp({x}) = {got}");
                continue;
            }
            let ulp = 2f64.powi((exact.log2().floor() as i32).max(-126) - 23);
            worst = worst.max((f64::from(got) - exact).abs() / ulp);
        }
    }
    assert!(worst <= 1.0, "{worst} ulp");
}

#[test]
fn exp_f64_is_within_1e_15() {
    let stream = Stream::new(5, 1);
    for i in 0..200_000 {
        let x = (stream.uniform(i) - 0.5) * if i % 2 == 0 { 1416.0 } else { 2.0 };
        let (got, exact) = (Real::exp(x), f64::exp(x));
        assert!((got - exact).abs() <= 1e-15 * exact, "exp({x}) = {got}, not {exact}");
    }
    assert_eq!(Real::exp(-744.0f64), f64::exp(-744.0), "subnormal");
}

#[test]
fn exp_at_the_ends_of_the_range() {
    fn check<T: Real>(low: f64, high: f64) {
        let exp = |x: f64| Real::exp(T::from_f64(x)).to_f64();
        assert_eq!([0.0, -0.0].map(exp), [1.0; 2]);
        assert_eq!([low, -1e30, f64::NEG_INFINITY].map(exp), [0.0; 3]);
        assert_eq!([high, 1e30, f64::INFINITY].map(exp), [f64::INFINITY; 3]);
        assert!(exp(f64::NAN).is_nan());
    }
    check::<f32>(-104.0, 89.0);
    check::<f64>(-746.0, 710.0);
}

/// |ln − exact| in units of the last place of the exact value, against f64, for every 97th positive number.
#[test]
fn ln_f32_is_within_two_ulp() {
    let mut worst = 0.0f64;
    for raw in (1..f32::INFINITY.to_bits()).step_by(97) {
        let x = f32::from_bits(raw);
        let (got, exact) = (f64::from(Real::ln(x)), f64::from(x).ln());
        worst = worst.max((got - exact).abs() / 2f64.powi(exact.abs().log2().floor().max(-126.0) as i32 - 23));
    }
    assert!(worst <= 2.0, "{worst} ulp");
}

#[test]
fn ln_f64_is_within_5e_16() {
    let stream = Stream::new(5, 2);
    let near_one = |i| 1.0 + (stream.uniform(i) - 0.5) * 2f64.powi(-(i as i32 % 50));
    for i in 0..200_000 {
        let x = if i % 2 == 0 { f64::from_bits(stream.below(i, 0x7FF0 << 48) as u64) } else { near_one(i) };
        let (got, exact) = (Real::ln(x), f64::ln(x));
        assert!((got - exact).abs() <= 5e-16 * exact.abs(), "ln({x}) = {got}, not {exact}");
    }
}

#[test]
fn ln_at_the_ends_of_the_range() {
    fn check<T: Real>() {
        let ln = |x: f64| Real::ln(T::from_f64(x)).to_f64();
        assert_eq!([0.0, -0.0, 1.0, f64::INFINITY].map(ln), [f64::NEG_INFINITY, f64::NEG_INFINITY, 0.0, f64::INFINITY]);
        assert!([-1e-30, -1.0, f64::NEG_INFINITY, f64::NAN].map(ln).iter().all(|x| x.is_nan()));
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn levels_have_names_and_unknown_ones_are_usage_errors() {
    for level in supported() {
        assert_eq!(Level::named(&level.to_string()), Ok(level));
    }
    let error = Level::named("sse9").unwrap_err();
    assert_eq!(error.kind, crate::ErrorKind::Usage);
    assert_eq!(error.to_string(), "unknown instruction set 'sse9'; use scalar, avx2, avx512, amx or neon");
    let foreign = if cfg!(target_arch = "aarch64") { Level::Avx2 } else { Level::Neon };
    let error = Level::named(&foreign.to_string()).unwrap_err();
    assert_eq!(error.kind, crate::ErrorKind::Usage);
    assert!(error.to_string().starts_with(&format!("this processor does not have {foreign}; it supports scalar")));
}
