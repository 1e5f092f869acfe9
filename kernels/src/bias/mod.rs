//! `y = x + b`, the same `b` for every row: the bias of a linear map, and learned positions, the same for every sample.

mod cpu;
pub(crate) mod cuda;

use crate::case::{Case, Fill, Input, Sizes};
use crate::{add, check, cost, lanes};
use engine::{Buffer, Context, Cost, Device, Error, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `x [.., S], b [S] → y [.., S]`, where S is any number of last dimensions.
///
/// - Formula: `y = x + b`, the same `b` for every row
/// - VJP: `d_x = d_y`, `d_b = Σ_rows d_y`, row by row in their order
/// - Source: elementary
///
/// Bound by memory.
#[derive(Clone, Copy, Debug)]
pub struct Bias;

impl Op for Bias {
    fn name(&self) -> &'static str {
        "bias"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["x", "b"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        let dtype = check::real("x", ins[0])?;
        let (x, b) = (ins[0].shape.dims(), ins[1].shape.dims());
        if ins[1].dtype != dtype || b.is_empty() || !x.ends_with(b) {
            return Err(Error::usage(format!(
                "b is {}, must be the last dimensions of x, which is {}",
                ins[1], ins[0]
            )));
        }
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::default()
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return cuda::forward(&**gpu, ins[0], ins[1], &mut outs[0]);
        }
        with_real!(ins[0].dtype(), T => cpu::forward::<T>(ins[0].as_slice(), ins[1].as_slice(), outs[0].as_mut_slice()))
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        _: &[&Buffer],
        _: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        let [d_x, d_b] = d_ins else { unreachable!("two inputs") };
        if let Device::Cuda(gpu) = cx.device {
            add::cuda::pass_on(&**gpu, wants[0], d_out, d_x);
            if wants[1].is_wanted() {
                cuda::vjp_b(&**gpu, wants[1], d_out, d_b);
            }
            return;
        }
        with_real!(d_out.dtype(), T => {
            if wants[0].is_wanted() {
                lanes::pass_on::<T>(wants[0], d_out.as_slice(), d_x.as_mut_slice());
            }
            if wants[1].is_wanted() {
                lanes::sum_rows::<T>(wants[1], d_out.as_slice(), d_b.as_mut_slice());
            }
        });
    }

    fn passes_through(&self, i: usize) -> bool {
        i == 0
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let [x, b] = ins else { unreachable!("two inputs") };
        let (n, bytes) = (x.shape.numel(), x.bytes() as u64);
        let forward = Cost { flops: n as u64, bytes: 2 * bytes + b.bytes() as u64 };
        cost::of_pass(pass, forward, |wants| {
            let sums = if wants[1].is_wanted() { n as u64 } else { 0 };
            let read = if wants.iter().any(|want| want.is_wanted()) { bytes } else { 0 };
            Cost { flops: sums, bytes: read }
                + cost::store(wants[0], n, x.bytes())
                + cost::store(wants[1], b.shape.numel(), b.bytes())
        })
    }
}

/// The bias of a linear map, and learned positions.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let case = |label: &str, b: &[usize]| {
        let x = Input::new(&[s.batch, s.tokens, s.dim()], Fill::NORMAL);
        Case::new(label, Bias, vec![x, Input::new(b, Fill::NORMAL)])
    };
    vec![case("of a linear map", &[s.dim()]), case("positions", &[s.tokens, s.dim()])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use engine::DType;

    #[test]
    fn matches_the_formula() {
        for case in testing::sizes().iter().flat_map(cases) {
            testing::check(&case, |x| x[0].iter().zip(x[1].iter().cycle()).map(|(x, b)| x + b).collect());
        }
    }

    /// More columns than one task sums, and not a multiple of them.
    #[test]
    fn wide_sums() {
        let (rows, width) = (7, 2 * lanes::COLUMNS + 5);
        let d_y: Vec<f64> = (0..rows * width).map(|i| (i * i % 101) as f64).collect();
        let d_y = Buffer::from_f64(DType::F64, &[rows, width], &d_y);
        let b = Buffer::from_f64(DType::F64, &[width], &vec![0.0; width]);
        let d_ins = testing::vjp(&Bias, &[Want::Skip, Want::Write], &[&d_y, &b], &[Buffer::default()], &d_y);
        let expected: Vec<f64> = (0..width).map(|j| (0..rows).map(|i| d_y.to_f64()[i * width + j]).sum()).collect();
        assert_eq!(d_ins[1].to_f64(), expected);
    }

    #[test]
    fn b_is_the_end_of_x() {
        let f32 = |dims: &[usize]| Spec::new(DType::F32, dims);
        let error = |b| Bias.infer(&[f32(&[2, 3, 4]), b]).unwrap_err().to_string();
        assert_eq!(error(f32(&[3])), "b is f32[3], must be the last dimensions of x, which is f32[2, 3, 4]");
        assert!(error(f32(&[2, 4])).contains("f32[2, 4]") && error(Spec::new(DType::F64, &[4])).contains("f64[4]"));
        assert!(Bias.infer(&[f32(&[2, 3, 4]), f32(&[3, 4])]).is_ok());
    }
}
