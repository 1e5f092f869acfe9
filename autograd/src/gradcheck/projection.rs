//! Maps a tensor to a scalar, or to a tensor of another shape.

use engine::{Buffer, Context, Cost, DType, Error, Op, Output, Pass, Result, Shape, Spec, Want};

/// A random linear map of n numbers to m, `x f64 [..] → y f64 shape`: `y_j = Σ w_k x_i` over all k < max(n, m) with j =
/// k mod m and i = k mod n. With m = 1 it turns any result into a scalar that can be checked. CPU only.
#[derive(Clone, Copy, Debug)]
pub struct Projection {
    /// Seeds the weights w, which are normal.
    pub seed: u64,
    /// Shape of the result.
    pub shape: Shape,
}

impl Projection {
    /// A projection to a scalar.
    pub fn new(seed: u64) -> Self {
        Self { seed, shape: Shape::new(&[1]) }
    }

    fn weights(self, n: usize) -> Vec<f64> {
        super::normal(self.seed, 5000, n.max(self.shape.numel()))
    }
}

impl Op for Projection {
    fn name(&self) -> &'static str {
        "projection"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        match ins {
            [x] if x.dtype == DType::F64 => Ok(vec![Output { name: "y", spec: Spec { shape: self.shape, ..*x } }]),
            _ => Err(Error::usage("takes one input of f64")),
        }
    }

    fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let (x, y) = (ins[0].as_slice::<f64>(), outs[0].as_mut_slice::<f64>());
        y.fill(0.0);
        for (k, w) in self.weights(x.len()).into_iter().enumerate() {
            y[k % y.len()] += w * x[k % x.len()];
        }
    }

    fn vjp(&self, _: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let (d_y, d_x) = (d_y.as_slice::<f64>(), d[0].as_mut_slice::<f64>());
        let mut gradient = vec![0.0; d_x.len()];
        for (k, w) in self.weights(d_x.len()).into_iter().enumerate() {
            gradient[k % d_x.len()] += w * d_y[k % d_y.len()];
        }
        for (d, g) in d_x.iter_mut().zip(gradient) {
            *d = if wants[0] == Want::Add { *d } else { 0.0 } + g;
        }
    }

    fn cost(&self, ins: &[Spec], _: Pass) -> Cost {
        let (n, m) = (ins[0].shape.numel(), self.shape.numel());
        Cost { flops: 2 * n.max(m) as u64, bytes: 8 * (n + m) as u64 }
    }
}
