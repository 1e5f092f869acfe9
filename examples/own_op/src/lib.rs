//! Your own op: softmax over rows, once with its gradient and once with a subtly wrong one.

use engine::simd::Real;
use engine::{Buffer, Context, Cost, DType, Error, Op, Output, Pass, Reads, Result, Spec, Want, with_real};
use gradtest::{Case, Input, Strategy, shapes};

/// The range of the mean in the gradient.
#[derive(Clone, Copy, Debug)]
pub enum Mean {
    /// The element's row, which is correct.
    Row,
    /// The whole tensor, which is correct only if there is one row.
    Everything,
}

/// `x [.., n] → y [.., n]` in f32 or f64, `y_i = exp(x_i) / Σ_j exp(x_j)` in every row; `d_x = y ⊙ (d_y − Σ_j y_j d_y_j)`.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    /// The mean of `d_y` under the probabilities `y`.
    pub mean: Mean,
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        match ins {
            [x] if matches!(x.dtype, DType::F32 | DType::F64) => Ok(vec![Output { name: "y", spec: *x }]),
            _ => Err(Error::usage("takes one tensor of f32 or f64")),
        }
    }

    fn reads(&self, _: &[Want]) -> Reads {
        Reads::of(&[], &[0])
    }

    fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let width = ins[0].shape().last();
        // The same code for both types: T is f32 or f64.
        with_real!(ins[0].dtype(), T => softmax::<T>(width, ins[0].as_slice(), outs[0].as_mut_slice()));
    }

    fn vjp(&self, _: &mut Context, wants: &[Want], _: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let width = match self.mean {
            Mean::Row => d_y.shape().last(),
            Mean::Everything => d_y.len(),
        };
        with_real!(d_y.dtype(), T => {
            gradient::<T>(width, outs[0].as_slice(), d_y.as_slice(), wants[0], d[0].as_mut_slice());
        });
    }

    fn cost(&self, ins: &[Spec], _: Pass) -> Cost {
        Cost { flops: 4 * ins[0].shape.numel() as u64, bytes: 2 * ins[0].bytes() as u64 }
    }
}

fn softmax<T: Real>(width: usize, x: &[T], y: &mut [T]) {
    for (y, x) in y.chunks_mut(width).zip(x.chunks(width)) {
        let most = x.iter().fold(f64::NEG_INFINITY, |most, x| most.max(x.to_f64()));
        let mut sum = T::ZERO;
        for (y, x) in y.iter_mut().zip(x) {
            *y = T::from_f64((x.to_f64() - most).exp());
            sum += *y;
        }
        y.iter_mut().for_each(|y| *y = *y / sum);
    }
}

fn gradient<T: Real>(width: usize, y: &[T], d_y: &[T], want: Want, d_x: &mut [T]) {
    for (d_x, (y, d_y)) in d_x.chunks_mut(width).zip(y.chunks(width).zip(d_y.chunks(width))) {
        let mean = y.iter().zip(d_y).fold(T::ZERO, |mean, (y, d_y)| mean + *y * *d_y);
        for i in 0..d_x.len() {
            let before = if want == Want::Add { d_x[i] } else { T::ZERO };
            d_x[i] = before + y[i] * (d_y[i] - mean);
        }
    }
}

/// Random test inputs: one to three dimensions of size up to six.
pub fn cases(mean: Mean) -> impl Strategy<Value = Case> {
    shapes(3, 6).prop_map(move |dims| Case::new("rows", Softmax { mean }, vec![Input::normal(&dims)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Device, Eager};

    // Gradients, random graphs, planted faults, determinism.
    gradtest::property_tests!(softmax, cases(Mean::Row));

    /// Softmax straight from its formula.
    fn reference(ins: &[gradtest::Tensor]) -> Vec<f64> {
        let row = |x: &[f64]| x.iter().map(|a| 1.0 / x.iter().map(|b| (b - a).exp()).sum::<f64>()).collect::<Vec<_>>();
        ins[0].data.chunks(ins[0].width()).flat_map(row).collect()
    }

    #[test]
    fn values() {
        gradtest::forward(cases(Mean::Row), reference).unwrap_or_else(|e| panic!("{e}"));
        gradtest::nan_stays(cases(Mean::Row)).unwrap_or_else(|e| panic!("{e}"));
        let batches = || cases(Mean::Row).prop_map(|case| Case { ins: vec![Input::normal(&[3, 5])], ..case });
        gradtest::independent_of_batch(batches(), &[0]).unwrap_or_else(|e| panic!("{e}"));
    }

    #[test]
    fn single_precision() {
        let eager = Eager { device: &Device::CPU, op: &Softmax { mean: Mean::Row } };
        let y = eager.forward(&[Buffer::from_slice(&[1, 2], &[0.0f32, 3f32.ln()])]);
        let y = y[0].as_slice::<f32>();
        assert!((y[0] - 0.25).abs() < 1e-6 && (y[1] - 0.75).abs() < 1e-6, "{y:?}");
    }
}
