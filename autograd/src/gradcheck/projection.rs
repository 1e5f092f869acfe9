//! A tensor made a number.

use engine::rng::Stream;
use engine::{Buffer, Context, Cost, DType, Error, Op, Output, Pass, Reads, Result, Spec, Want};

/// `x f64 [..] → y [1]`, `y = Σ w ⊙ x` with fixed random weights w: makes a number of any result, so that it can be checked.
/// On the CPU only.
#[derive(Clone, Copy, Debug)]
pub struct Projection {
    /// Seeds the weights, which are normal.
    pub seed: u64,
}

impl Projection {
    fn weights(self, len: usize) -> Vec<f64> {
        let mut w = vec![0.0; len];
        Stream::new(self.seed, 5000).fill_normal(&mut w, |x| x);
        w
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
            [x] if x.dtype == DType::F64 => Ok(vec![Output { name: "y", spec: Spec::new(DType::F64, &[1]) }]),
            _ => Err(Error::usage("takes one input of f64")),
        }
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::default()
    }

    fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let x = ins[0].as_slice::<f64>();
        outs[0].as_mut_slice::<f64>()[0] = super::dot(x, &self.weights(x.len()));
    }

    fn vjp(&self, _: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        if !wants[0].is_wanted() {
            return;
        }
        let (d_y, d_x) = (d_y.as_slice::<f64>()[0], d[0].as_mut_slice::<f64>());
        let weights = self.weights(d_x.len());
        for (d, w) in d_x.iter_mut().zip(weights) {
            *d = if wants[0] == Want::Add { *d } else { 0.0 } + d_y * w;
        }
    }

    fn cost(&self, ins: &[Spec], _: Pass) -> Cost {
        Cost { flops: 2 * ins[0].shape.numel() as u64, bytes: ins[0].bytes() as u64 }
    }
}
