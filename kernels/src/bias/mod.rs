//! The bias of a linear map, and learned positions.

use crate::case::{Case, Input, Sizes};
use crate::launch::{args, over};
use crate::{add, check, cost, lanes};
use engine::cuda::{Grid, Module};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Result, Spec, Want, parallel, with_real};

pub(crate) static KERNELS: Module = Module::new("bias", include_str!("kernel.cu"));

/// `x [.., S], b [S] → y [.., S]`, where S is any number of last dimensions.
///
/// - Formula: `y = x + b`, the same `b` for every row
/// - VJP: `d_x = d_y`, `d_b = Σ_rows d_y`, row by row in their order
/// - Source: elementary
///
/// Memory-bound.
#[derive(Clone, Copy, Debug)]
pub struct Bias;

impl Op for Bias {
    check::names!("bias": x, b);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("x", ins[0])?;
        let (x, b) = (ins[0].shape.dims(), ins[1].shape.dims());
        check::that(ins[1].dtype == dtype && !b.is_empty() && x.ends_with(b), || {
            format!("b is {}, must be the last dimensions of x, which is {}", ins[1], ins[0])
        })?;
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let args = args![ins[0], ins[1], &outs[0], outs[0].len(), ins[1].len()];
            return over(&**gpu, &outs[0], &KERNELS, "forward", args);
        }
        with_real!(ins[0].dtype(), T => {
            let (x, b) = (ins[0].as_slice::<T>(), ins[1].as_slice::<T>());
            let chunk = lanes::rows_per_chunk(b.len()) * b.len();
            // Plain loops: memory is the limit, and auto-vectorised code is fast enough.
            parallel::chunks(outs[0].as_mut_slice(), chunk, |c, y: &mut [T]| {
                for (y, x) in y.chunks_exact_mut(b.len()).zip(x[c * chunk..].chunks_exact(b.len())) {
                    y.iter_mut().zip(x).zip(b).for_each(|((y, &x), &b)| *y = x + b);
                }
            });
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], _: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let [d_x, d_b] = d else { unreachable!("two inputs") };
        add::pass_on(cx.device, wants[0], d_y, d_x);
        match cx.device {
            _ if !wants[1].is_wanted() => {}
            Device::Cuda(gpu) => {
                let width = d_b.len();
                let args = args![d_y, wants[1], &*d_b, d_y.len() / width, width];
                gpu.launch(&KERNELS.kernel("backward", d_y.dtype()), Grid::new(width.div_ceil(32), 1024), args);
            }
            Device::Cpu(_) => with_real!(d_y.dtype(), T => {
                lanes::sum_rows::<T>(wants[1], d_y.as_slice(), d_b.as_mut_slice());
            }),
        }
    }

    fn passes_through(&self, i: usize) -> bool {
        i == 0
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let n = ins[0].shape.numel();
        cost::of(self, ins, pass, n, &[0, n])
    }
}

/// The bias of a linear map, and learned positions.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let case = |label: &str, b: &[usize]| {
        let x = Input::normal(&[s.batch, s.tokens, s.dim()]);
        Case::new(label, Bias, vec![x, Input::normal(b)])
    };
    vec![case("of a linear map", &[s.dim()]), case("positions", &[s.tokens, s.dim()])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, refuses, sizes};

    #[test]
    fn matches_the_formula() {
        // More columns than one task sums, and not a multiple of them.
        let wide = Sizes { heads: 1, head_dim: 2 * lanes::COLUMNS + 5, ..sizes()[0] };
        check_all(cases, &[wide], |_, _, x| x[0].iter().zip(x[1].iter().cycle()).map(|(x, b)| x + b).collect());
    }

    #[test]
    fn b_is_the_end_of_x() {
        let x = "must be the last dimensions of x, which is f32[2, 3, 4]";
        refuses(&Bias, "f32[2, 3, 4] f32[3]", &format!("b is f32[3], {x}"));
        refuses(&Bias, "f32[2, 3, 4] f32[2, 4]", &format!("b is f32[2, 4], {x}"));
    }
}
