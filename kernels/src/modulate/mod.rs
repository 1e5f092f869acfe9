//! Features scaled and shifted by numbers of their sample: adaptive norms and gates.

mod cpu;

use crate::case::{Case, Input, Sizes};
use crate::launch::{args, over};
use crate::{check, cost, elementwise};
use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("modulate", include_str!("kernel.cu"));

/// `x [B, N, d], term [B, d] or [B, N, d], factor [B, d] → y [B, N, d]`.
///
/// With a base of 1 and a term for each sample this modulates a norm, with a base of 0 and a term for each token it adds a gated
/// branch to the residual stream.
///
/// - Formula: `y[b, n] = (base + factor[b]) ⊙ x[b, n] + term[b]`, or `… + term[b, n]`
/// - VJP: `d_x[b, n] = (base + factor[b]) ⊙ d_y[b, n]`, `d_factor[b] = Σ_n d_y[b, n] ⊙ x[b, n]`, `d_term[b] = Σ_n d_y[b, n]`, or
///   `d_term = d_y`
/// - Source: Peebles and Xie, "Scalable diffusion models with transformers", arXiv 2212.09748
///
/// Memory-bound.
#[derive(Clone, Copy, Debug)]
pub struct Modulate {
    /// Added to the factor.
    pub base: f64,
}

impl Op for Modulate {
    check::names!("modulate": x, term, factor);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("x", ins[0])?;
        check::rank("x", ins[0], 3)?;
        let &[batch, _, d] = ins[0].shape.dims() else { unreachable!("three dimensions") };
        let dims = if ins[1].shape.rank() == 3 { ins[0].shape.dims() } else { &[batch, d] };
        check::is("term", ins[1], dtype, dims)?;
        check::is("factor", ins[2], dtype, &[batch, d])?;
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        Reads { ins: u16::from(wants[2].is_wanted()) | u16::from(wants[0].is_wanted()) << 2, outs: 0 }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let y = &mut outs[0];
        if let Device::Cuda(gpu) = cx.device {
            return self.launch(&**gpu, ins[0], Some(ins[1]), ins[2], Want::Write, y);
        }
        let tokens = y.shape().dims()[1];
        with_real!(y.dtype(), T => {
            let ins = [ins[0], ins[1], ins[2]].map(|x| x.as_slice());
            cpu::forward::<T>(self.base, tokens, y.shape().last(), ins, y.as_mut_slice());
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let [d_x, d_term, d_factor] = d else { unreachable!("three inputs") };
        if wants[1].is_wanted() && d_term.shape() == d_y.shape() {
            elementwise::pass_on(cx, wants[1], d_y, d_term);
        } else if wants[1].is_wanted() {
            sum(cx, d_y, None, wants[1], d_term);
        }
        if wants[2].is_wanted() {
            sum(cx, d_y, Some(ins[0]), wants[2], d_factor);
        }
        if !wants[0].is_wanted() {
            return;
        }
        if let Device::Cuda(gpu) = cx.device {
            return self.launch(&**gpu, d_y, None, ins[2], wants[0], d_x);
        }
        let (tokens, d) = (d_y.shape().dims()[1], d_y.shape().last());
        with_real!(d_y.dtype(), T => {
            let ins = [d_y, ins[2]].map(|x| x.as_slice());
            cpu::scale::<T>(self.base, tokens, d, ins, wants[0], d_x.as_mut_slice());
        });
    }

    /// The result's gradient is that of a term for each token; the planner compares their shapes.
    fn passes_through(&self, i: usize) -> bool {
        i == 1
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (n, factors) = (ins[0].shape.numel(), ins[2].shape.numel());
        let sum = if ins[1].shape.rank() == 3 { 0 } else { n };
        cost::of(self, ins, pass, 2 * n + factors, &[n + factors, sum, 2 * n])
    }
}

impl Modulate {
    /// y = (base + factor) ⊙ x, plus the term if there is one, written or added.
    fn launch(&self, gpu: &dyn Gpu, x: &Buffer, term: Option<&Buffer>, factor: &Buffer, want: Want, y: &Buffer) {
        let (tokens, d) = (y.shape().dims()[1], y.shape().last());
        let each = term.is_some_and(|term| term.shape() == y.shape());
        let term = term.map_or(Arg::Pointer(0), Arg::from);
        let args = args![x, term, usize::from(each), factor, Arg::F32(self.base as f32), want, y, y.len(), tokens, d];
        over(gpu, y, &KERNELS, "modulate", args);
    }
}

/// out [B, d] = Σ_n d_y [B, N, d], each times x if there is one, written or added.
fn sum(cx: &Context, d_y: &Buffer, x: Option<&Buffer>, want: Want, out: &mut Buffer) {
    let &[batch, tokens, d] = d_y.shape().dims() else { unreachable!("three dimensions") };
    if let Device::Cuda(gpu) = cx.device {
        let args = args![d_y, x.map_or(Arg::Pointer(0), Arg::from), want, out, tokens, d];
        let grid = Grid::with_blocks([d.div_ceil(32), batch, 1], 1024);
        return gpu.launch(&KERNELS.kernel("sums", d_y.dtype()), grid, args);
    }
    with_real!(d_y.dtype(), T => {
        cpu::sum::<T>(tokens, d, d_y.as_slice(), x.map(|x| x.as_slice()), want, out.as_mut_slice());
    });
}

/// A modulated norm, and a gated branch.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let (x, row) = (Input::normal(&[s.batch, s.tokens, s.dim()]), Input::normal(&[s.batch, s.dim()]));
    vec![
        Case::new("norm", Modulate { base: 1.0 }, vec![x.clone(), row.clone(), row.clone()]),
        Case::new("gate", Modulate { base: 0.0 }, vec![x.clone(), x, row]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, refuses, sizes};

    #[test]
    fn matches_the_formula() {
        // Several chunks, whose ends are not those of the samples.
        let large = Sizes { batch: 3, tokens: 67, head_dim: 70, ..sizes()[0] };
        check_all(cases, &[large], |s, number, ins| {
            let (d, per_sample) = (s.dim(), s.tokens * s.dim());
            let at = |(i, x): (usize, &f64)| {
                let of_sample = i / per_sample * d + i % d;
                match number {
                    0 => (1.0 + ins[2][of_sample]) * x + ins[1][of_sample],
                    _ => ins[2][of_sample] * x + ins[1][i],
                }
            };
            ins[0].iter().enumerate().map(at).collect()
        });
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let op = Modulate { base: 1.0 };
        refuses(&op, "f32[2, 12] f32[2, 12] f32[2, 12]", "x is f32[2, 12], must have 3 dimensions");
        refuses(&op, "f32[2, 5, 12] f32[5, 12] f32[2, 12]", "term is f32[5, 12], must be f32[2, 12]");
        refuses(&op, "f32[2, 5, 12] f32[2, 12] f32[12]", "factor is f32[12], must be f32[2, 12]");
        refuses(&op, "f32[2, 5, 12] f32[2, 1, 12] f32[2, 12]", "term is f32[2, 1, 12], must be f32[2, 5, 12]");
    }
}
