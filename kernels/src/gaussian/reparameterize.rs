use super::{cpu, cuda};
use crate::{add, check, cost, lanes};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `mu, logvar, eps [..] → z [..]`. Bound by memory.
///
/// - Formula: `z = mu + exp(logvar/2) ⊙ eps`
/// - VJP: with σ = exp(logvar/2): `d_mu = d_z`, `d_logvar = ½ d_z ⊙ eps ⊙ σ`, `d_eps = d_z ⊙ σ`
/// - Source: Kingma and Welling, arXiv 1312.6114, section 2.4
#[derive(Clone, Copy, Debug)]
pub struct Reparameterize;

const MU: usize = 0;
const LOGVAR: usize = 1;
const EPS: usize = 2;

impl Op for Reparameterize {
    fn name(&self) -> &'static str {
        "reparameterize"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["mu", "logvar", "eps"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        let (dtype, dims) = (check::real("mu", ins[MU])?, ins[MU].shape);
        check::is("logvar", ins[LOGVAR], dtype, dims.dims())?;
        check::is("eps", ins[EPS], dtype, dims.dims())?;
        Ok(vec![Output { name: "z", spec: ins[MU] }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        match (wants[LOGVAR].is_wanted(), wants[EPS].is_wanted()) {
            (true, _) => Reads::of(&[LOGVAR, EPS], &[]),
            (false, true) => Reads::of(&[LOGVAR], &[]),
            (false, false) => Reads::default(),
        }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return cuda::reparameterize(&**gpu, ins[MU], ins[LOGVAR], ins[EPS], &mut outs[0]);
        }
        with_real!(ins[MU].dtype(), T => {
            let (mu, logvar, eps) = (ins[MU].as_slice(), ins[LOGVAR].as_slice(), ins[EPS].as_slice());
            cpu::reparameterize::<T>(mu, logvar, eps, outs[0].as_mut_slice());
        })
    }

    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        _outs: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    ) {
        if let Device::Cuda(gpu) = cx.device {
            let [d_mu, d_logvar, d_eps] = d_ins else { unreachable!("three inputs") };
            add::cuda::pass_on(&**gpu, wants[MU], d_out, d_mu);
            let wants = [wants[LOGVAR], wants[EPS]];
            return cuda::reparameterize_backward(&**gpu, wants, ins[LOGVAR], ins[EPS], d_out, [d_logvar, d_eps]);
        }
        with_real!(d_out.dtype(), T => {
            let d_z = d_out.as_slice::<T>();
            if wants[MU].is_wanted() {
                lanes::pass_on(wants[MU], d_z, d_ins[MU].as_mut_slice());
            }
            if wants[LOGVAR].is_wanted() {
                let (logvar, eps) = (ins[LOGVAR].as_slice(), ins[EPS].as_slice());
                cpu::reparameterize_d_logvar(wants[LOGVAR], logvar, eps, d_z, d_ins[LOGVAR].as_mut_slice());
            }
            if wants[EPS].is_wanted() {
                cpu::reparameterize_d_eps(wants[EPS], ins[LOGVAR].as_slice(), d_z, d_ins[EPS].as_mut_slice());
            }
        });
    }

    fn passes_through(&self, i: usize) -> bool {
        i == MU
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (n, bytes) = (ins[MU].shape.numel(), ins[MU].bytes());
        let cost = |flops: usize, tensors: usize| Cost { flops: (flops * n) as u64, bytes: (tensors * bytes) as u64 };
        cost::of_pass(pass, cost(4, 4), |wants| {
            let compute = match (wants[LOGVAR].is_wanted(), wants[EPS].is_wanted()) {
                (true, true) => cost(8, 3),
                (true, false) => cost(5, 3),
                (false, true) => cost(3, 2),
                (false, false) if wants[MU].is_wanted() => cost(0, 1),
                (false, false) => cost(0, 0),
            };
            compute + wants.iter().map(|&want| cost::store(want, n, bytes)).sum()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use engine::DType;

    #[test]
    fn matches_the_formula() {
        for s in testing::sizes() {
            testing::check(&super::super::cases(&s)[0], |x| {
                (0..x[0].len()).map(|i| x[0][i] + x[1][i].exp().sqrt() * x[2][i]).collect()
            });
        }
    }

    #[test]
    fn shapes_must_agree() {
        let (a, b) = (Spec::new(DType::F64, &[2, 3, 4]), Spec::new(DType::F64, &[2, 3]));
        let error = |ins: [Spec; 3]| Reparameterize.infer(&ins).unwrap_err().to_string();
        assert_eq!(error([a, b, a]), "logvar is f64[2, 3], must be f64[2, 3, 4]");
        assert_eq!(error([a, a, b]), "eps is f64[2, 3], must be f64[2, 3, 4]");
    }
}
