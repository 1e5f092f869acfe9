//! Proptest strategies for shapes and for numbers, including special ones. Shapes shrink to ones, numbers to 0 or ±1.

use engine::rng::Stream;
use proptest::collection::vec;
use proptest::prelude::*;
use std::ops::RangeInclusive;

/// Shapes of up to `rank` dimensions of up to `size`; they shrink towards fewer dimensions of one.
pub fn shapes(rank: usize, size: usize) -> impl Strategy<Value = Vec<usize>> {
    vec(1..=size, 1..=rank)
}

/// One number of a tensor, in units of the tensor's standard deviation from its mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// This value.
    Unit(f64),
    /// Exactly zero, for any mean.
    Zero,
    /// The tensor's first number.
    First,
    /// The previous number with the other sign: a tie of magnitudes.
    Opposite,
}

fn common() -> BoxedStrategy<Number> {
    // Other arms shrink to the first.
    prop_oneof![
        1 => (-2..=2i32).prop_map(|k| Number::Unit(f64::from(k))),
        6 => (-192..=192i32).prop_map(|k| Number::Unit(f64::from(k) / 64.0)),
    ]
    .boxed()
}

/// The numbers of a tensor of any size: the first are drawn one by one and shrink one by one, the rest are normal.
#[derive(Clone, Debug)]
pub struct Numbers {
    first: Vec<Number>,
    rest: u32,
}

/// Number of elements drawn one by one.
const DRAWN: usize = 24;

/// Numbers of one of these kinds: common ones; with zeros; with equal entries; with ties; with large ones (2 to 10ᵈ times the
/// others for d `decades`); with tiny ones (from 10⁻⁸). The magnitudes of large and tiny ones are uniform in their logarithm.
pub fn numbers(decades: i32) -> impl Strategy<Value = Numbers> {
    let mixed = |special: BoxedStrategy<Number>| vec(prop_oneof![3 => common(), 1 => special], DRAWN).boxed();
    let scaled = |exponents: RangeInclusive<i32>| {
        let magnitude = exponents.prop_map(|k| 10f64.powf(f64::from(k) / 64.0));
        (prop_oneof![Just(1.0), Just(-1.0)], magnitude).prop_map(|(sign, size)| Number::Unit(sign * size)).boxed()
    };
    let first = prop_oneof![
        6 => vec(common(), DRAWN),
        1 => mixed(Just(Number::Zero).boxed()),
        1 => mixed(Just(Number::First).boxed()),
        1 => mixed(Just(Number::Opposite).boxed()),
        1 => mixed(scaled(20..=64 * decades)),
        1 => mixed(scaled(-512..=-112)),
    ];
    (first, any::<u32>()).prop_map(|(first, rest)| Numbers { first, rest })
}

impl Numbers {
    /// `len` numbers of the given mean and standard deviation.
    pub fn normal(&self, len: usize, mean: f64, std: f64) -> Vec<f64> {
        let mut out: Vec<f64> = vec![0.0; len];
        Stream::new(u64::from(self.rest), 0).fill_normal(0, &mut out, |x| mean + std * x);
        for (i, number) in self.first.iter().enumerate().take(len) {
            out[i] = match number {
                Number::Unit(u) => mean + std * u,
                Number::Zero => 0.0,
                Number::First if i > 0 => out[0],
                Number::Opposite if i > 0 => -out[i - 1],
                Number::First | Number::Opposite => mean + std,
            };
        }
        out
    }

    /// `len` integers from 0 to below `below`; entries are equal where the numbers are.
    pub fn integers(&self, len: usize, below: usize) -> Vec<i32> {
        // Huge numbers stay in range.
        self.normal(len, 0.0, 1.0).iter().map(|u| ((u.abs() * 64.0) as u64 % below as u64) as i32).collect()
    }

    /// The same from number `k` on, for another tensor.
    pub(crate) fn rotated(&self, k: usize) -> Self {
        let mut first = self.first.clone();
        first.rotate_left(k % DRAWN);
        Self { first, rest: self.rest.wrapping_add(k as u32) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    #[test]
    fn special_numbers_are_drawn() {
        let mut runner = TestRunner::deterministic();
        let draws = (0..500).flat_map(|_| numbers(4).new_tree(&mut runner).expect("no filter").current().first);
        let drawn: Vec<Number> = draws.collect();
        for special in [Number::Unit(0.0), Number::Zero, Number::First, Number::Opposite] {
            assert!(drawn.contains(&special), "{special:?}");
        }
        // Every half decade.
        for [from, to] in (0..24).map(|k| [0, 1].map(|i| 10f64.powf(f64::from(k + i) / 2.0 - 8.0))) {
            let is_between = |n: &&Number| matches!(n, Number::Unit(u) if (from..to).contains(&u.abs()));
            let count = drawn.iter().filter(is_between).count();
            assert!(count > 10, "{count} numbers from {from:e} to {to:e}");
        }
        let first = vec![Number::Unit(1.0), Number::Zero, Number::First, Number::Opposite];
        assert_eq!(Numbers { first, rest: 0 }.normal(4, 2.0, 0.5), [2.5, 0.0, 2.5, -2.5]);
    }
}
