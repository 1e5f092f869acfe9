//! Cases: an op with test inputs. Gradient checks, tests of bits and devices, and benchmarks use the same list per op.

use crate::rng::Stream;
use crate::{Buffer, DType, Op, Spec};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// The distribution of an input's numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Fill {
    /// Normal with this mean and standard deviation.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Uniform between these two, neither included. If one is infinite, from 10⁻⁴ to 10⁴ away from the other: the
    /// logarithm of that distance is densest at a distance of 1.
    Between {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
    /// Above zero, from 10⁻⁴ to 10⁴; the density of the logarithm is highest at 1.
    Positive,
    /// Integers in `0..below`, as i32.
    Integers {
        /// Exclusive upper bound.
        below: usize,
    },
    /// Integers in `0..below`, about one in five replaced by −1 (no label), never all.
    Labels {
        /// Exclusive upper bound.
        below: usize,
    },
    /// Exactly these numbers.
    Given(Vec<f64>),
}

impl Fill {
    /// Standard normal numbers.
    pub const NORMAL: Self = Self::Normal { mean: 0.0, std: 1.0 };

    /// Between 0 and 1.
    pub const UNIT: Self = Self::Between { low: 0.0, high: 1.0 };

    /// A float of this distribution for a standard normal `x`, in the same order; `x` itself for integers and given
    /// numbers.
    pub fn float(&self, x: f64) -> f64 {
        match *self {
            Self::Normal { mean, std } => mean + std * x,
            Self::Between { low, high } => between(low..high, x),
            Self::Positive => between(0.0..f64::INFINITY, x),
            Self::Integers { .. } | Self::Labels { .. } | Self::Given(_) => x,
        }
    }

    /// The part of it in an op's [`domain`](Op::domain); the whole domain in place of normal numbers. Given numbers and
    /// integers remain.
    #[must_use]
    pub fn within(self, domain: Range<f64>) -> Self {
        let own = match self {
            _ if domain == (f64::NEG_INFINITY..f64::INFINITY) => return self,
            Self::Normal { .. } => domain.clone(),
            Self::Between { low, high } => low..high,
            Self::Positive => 0.0..f64::INFINITY,
            Self::Integers { .. } | Self::Labels { .. } | Self::Given(_) => return self,
        };
        Self::Between { low: own.start.max(domain.start), high: own.end.min(domain.end) }
    }
}

/// Maps all real numbers to an interval, and standard normal ones to a uniform distribution if the interval is finite.
fn between(interval: Range<f64>, x: f64) -> f64 {
    let Range { start: low, end: high } = interval;
    // Between −1 and 1.
    let share = x / (1.0 + x.abs());
    match (low.is_finite(), high.is_finite()) {
        (true, true) => {
            // The distribution function of the normal distribution, to within 2·10⁻⁴ (Page, Applied Statistics 26, 1977). A
            // millionth of the width keeps rounding to f32 from reaching bounds that are not much larger than it.
            let probability = 1.0 / (1.0 + (-x * (1.5976 + 0.070_566 * x * x)).exp());
            low + (high - low) * probability.clamp(1e-6, 1.0 - 1e-6)
        }
        (true, false) => low + 10f64.powf(4.0 * share),
        (false, true) => high - 10f64.powf(-4.0 * share),
        (false, false) => x,
    }
}

/// One input of a case.
#[derive(Clone, Debug)]
pub struct Input {
    /// Sizes.
    pub dims: Vec<usize>,
    /// Numbers.
    pub fill: Fill,
    /// Whether it stays f32 when other tensors are bf16.
    precise: bool,
}

impl Input {
    /// An input of the given sizes and numbers.
    pub fn new(dims: &[usize], fill: Fill) -> Self {
        Self { dims: dims.to_vec(), fill, precise: false }
    }

    /// An input of standard normal numbers.
    pub fn normal(dims: &[usize]) -> Self {
        Self::new(dims, Fill::NORMAL)
    }

    /// An input with the precision of sums and statistics.
    pub fn statistic(dims: &[usize], fill: Fill) -> Self {
        Self { precise: true, ..Self::new(dims, fill) }
    }

    /// The input as a buffer of `float` (or i32). All float types hold the same numbers, with f32 precision.
    pub fn buffer(&self, float: DType, stream: Stream) -> Buffer {
        let n = self.dims.iter().product::<usize>();
        let values: Vec<f64> = match &self.fill {
            fill @ (Fill::Normal { .. } | Fill::Between { .. } | Fill::Positive) => {
                (0..n).into_par_iter().map(|i| f64::from(fill.float(stream.normal(i as u32)) as f32)).collect()
            }
            Fill::Integers { below } => (0..n).map(|i| stream.below(i as u32, *below) as f64).collect(),
            Fill::Labels { below } => (0..n)
                .map(|i| match stream.below((n + i) as u32, 5) {
                    0 if i > 0 => -1.0,
                    _ => stream.below(i as u32, *below) as f64,
                })
                .collect(),
            Fill::Given(values) => values.clone(),
        };
        Buffer::from_f64(self.spec(float).dtype, &self.dims, &values)
    }

    /// Type and shape when floats are `float`.
    pub fn spec(&self, float: DType) -> Spec {
        let dtype = match (&self.fill, float) {
            (Fill::Integers { .. } | Fill::Labels { .. }, _) => DType::I32,
            (_, DType::Bf16) if self.precise => DType::F32,
            (_, float) => float,
        };
        Spec::new(dtype, &self.dims)
    }
}

/// An op and its test inputs.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, e.g. `window` or `with residual`.
    pub label: String,
    /// The op.
    pub op: Arc<dyn Op>,
    /// Its inputs.
    pub ins: Vec<Input>,
}

impl Case {
    /// A case of `op`. Its inputs keep to the op's [`domain`](Op::domain).
    pub fn new(label: impl Into<String>, op: impl Op + 'static, ins: Vec<Input>) -> Self {
        let within = |(i, input): (usize, Input)| Input { fill: input.fill.within(op.domain(i)), ..input };
        let ins = ins.into_iter().enumerate().map(within).collect();
        Self { label: label.into(), op: Arc::new(op), ins }
    }

    /// The inputs as buffers; the same `seed` gives the same numbers in every float type.
    pub fn buffers(&self, float: DType, seed: u64) -> Vec<Buffer> {
        self.ins.iter().zip(0..).map(|(input, site)| input.buffer(float, Stream::new(seed, site))).collect()
    }

    /// The inputs that have a gradient: number and name.
    pub fn differentiable(&self) -> impl Iterator<Item = (usize, &'static str)> {
        self.op.arguments().iter().copied().enumerate().filter(|&(i, _)| self.op.differentiable(i))
    }

    /// The inputs' types and shapes.
    pub fn specs(&self, float: DType) -> Vec<Spec> {
        self.ins.iter().map(|input| input.spec(float)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_to_their_interval_and_order() {
        let between = |low, high| Fill::Between { low, high };
        let fills =
            [(Fill::UNIT, 0.0..1.0), (Fill::Positive, 0.0..f64::INFINITY), (between(-7.0, f64::INFINITY), -7.0..1e5)];
        for (fill, interval) in fills.into_iter().chain([(between(f64::NEG_INFINITY, 2.0), -1e5..2.0)]) {
            let drawn = [-1e4, -1.0, -1e-8, 0.0, 1e-8, 2.0, 1e4].map(|x| fill.float(x));
            assert!(drawn.is_sorted() && drawn[0] < drawn[6], "{fill:?}: {drawn:?}");
            assert!(drawn.iter().all(|x| interval.start < *x && interval.contains(x)), "{fill:?}: {drawn:?}");
        }
    }

    #[test]
    fn a_domain_restricts_what_is_drawn() {
        let positive = 0.0..f64::INFINITY;
        let reals = f64::NEG_INFINITY..f64::INFINITY;
        let within = |fill: Fill, domain: &Range<f64>| fill.within(domain.clone());
        assert_eq!(within(Fill::NORMAL, &reals), Fill::NORMAL);
        assert_eq!(within(Fill::NORMAL, &positive), Fill::Between { low: 0.0, high: f64::INFINITY });
        let wide = Fill::Between { low: -1.0, high: 2.0 };
        assert_eq!(within(wide, &positive), Fill::Between { low: 0.0, high: 2.0 });
        assert_eq!(within(Fill::UNIT, &positive), Fill::UNIT);
        let given = Fill::Given(vec![-1.0]);
        assert_eq!(within(given.clone(), &positive), given);
    }
}
