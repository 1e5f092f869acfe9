//! Your own op: softmax over rows, once with its gradient and once with a subtly wrong one.

use engine::{Buffer, Context, Cost, DType, Error, Op, Output, Pass, Reads, Result, Spec, Want};
use gradtest::{Case, Fill, Input, Strategy, shapes};

/// The range of the mean in the gradient.
#[derive(Clone, Copy, Debug)]
pub enum Mean {
    /// The element's row, which is correct.
    Row,
    /// The whole tensor, which is correct only if there is one row.
    Everything,
}

/// `x f64 [.., n] → y [.., n]`, `y_i = exp(x_i) / Σ_j exp(x_j)` in every row; `d_x = y ⊙ (d_y − Σ_j y_j d_y_j)`.
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
            [x] if x.dtype == DType::F64 && x.shape.rank() > 0 => Ok(vec![Output { name: "y", spec: *x }]),
            _ => Err(Error::usage("takes one tensor of f64")),
        }
    }

    fn reads(&self, _: &[Want]) -> Reads {
        Reads::of(&[], &[0])
    }

    fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let width = ins[0].shape().last();
        let rows = ins[0].as_slice::<f64>().chunks(width);
        for (y, x) in outs[0].as_mut_slice::<f64>().chunks_mut(width).zip(rows) {
            let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - most).exp());
            let sum: f64 = y.iter().sum();
            y.iter_mut().for_each(|y| *y /= sum);
        }
    }

    fn vjp(&self, _: &mut Context, wants: &[Want], _: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        if !wants[0].is_wanted() {
            return;
        }
        let width = match self.mean {
            Mean::Row => d_y.shape().last(),
            Mean::Everything => d_y.len(),
        };
        let rows = outs[0].as_slice::<f64>().chunks(width).zip(d_y.as_slice::<f64>().chunks(width));
        for (d_x, (y, d_y)) in d[0].as_mut_slice::<f64>().chunks_mut(width).zip(rows) {
            let mean: f64 = y.iter().zip(d_y).map(|(y, d)| y * d).sum();
            for i in 0..d_x.len() {
                let before = if wants[0] == Want::Add { d_x[i] } else { 0.0 };
                d_x[i] = before + y[i] * (d_y[i] - mean);
            }
        }
    }

    fn cost(&self, ins: &[Spec], _: Pass) -> Cost {
        Cost { flops: 4 * ins[0].shape.numel() as u64, bytes: 2 * ins[0].bytes() as u64 }
    }
}

/// Random test inputs: one to three dimensions of size up to six.
pub fn cases(mean: Mean) -> impl Strategy<Value = Case> {
    shapes(3, 6).prop_map(move |dims| Case::new("rows", Softmax { mean }, vec![Input::new(&dims, Fill::NORMAL)]))
}

#[cfg(test)]
gradtest::property_tests!(softmax, cases(Mean::Row));
