use super::{cpu, cuda};
use crate::{check, cost};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

/// `mu, logvar [B, S, d] → kl [B]`, in nats. Bound by memory.
///
/// - Formula: `kl = ½ Σ (mu² + exp(logvar) − logvar − 1)` over a sample's S·d numbers, each latent's d by lanes and then the
///   latents in their order
/// - VJP: `d_mu = d_kl · mu`, `d_logvar = ½ d_kl · (exp(logvar) − 1)`
/// - Source: Kingma and Welling, arXiv 1312.6114, appendix B
#[derive(Clone, Copy, Debug)]
pub struct GaussianKl;

const MU: usize = 0;
const LOGVAR: usize = 1;

impl Op for GaussianKl {
    fn name(&self) -> &'static str {
        "gaussian_kl"
    }

    fn arguments(&self) -> &'static [&'static str] {
        &["mu", "logvar"]
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        check::count(self.arguments(), ins)?;
        let dtype = check::real("mu", ins[MU])?;
        check::rank("mu", ins[MU], 3)?;
        check::is("logvar", ins[LOGVAR], dtype, ins[MU].shape.dims())?;
        Ok(vec![Output { name: "kl", spec: Spec::new(check::statistic(dtype), &ins[MU].shape.dims()[..1]) }])
    }

    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        Reads { ins: wants.iter().enumerate().map(|(i, want)| u16::from(want.is_wanted()) << i).sum(), outs: 0 }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            return cuda::kl(&**gpu, ins[MU], ins[LOGVAR], &mut outs[0]);
        }
        let d = ins[MU].shape().last();
        with_real!(ins[MU].dtype(), T => {
            cpu::kl::<T>(d, ins[MU].as_slice(), ins[LOGVAR].as_slice(), outs[0].as_mut_slice());
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
            let [d_mu, d_logvar] = d_ins else { unreachable!("two inputs") };
            let wants = [wants[MU], wants[LOGVAR]];
            return cuda::kl_backward(&**gpu, wants, ins[MU], ins[LOGVAR], d_out, [d_mu, d_logvar]);
        }
        with_real!(d_out.dtype(), T => {
            let d_kl = d_out.as_slice::<T>();
            if wants[MU].is_wanted() {
                cpu::kl_d_mu(wants[MU], ins[MU].as_slice(), d_kl, d_ins[MU].as_mut_slice());
            }
            if wants[LOGVAR].is_wanted() {
                cpu::kl_d_logvar(wants[LOGVAR], ins[LOGVAR].as_slice(), d_kl, d_ins[LOGVAR].as_mut_slice());
            }
        });
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let (n, bytes) = (ins[MU].shape.numel(), ins[MU].bytes());
        let cost = |flops: usize, tensors: usize| Cost { flops: (flops * n) as u64, bytes: (tensors * bytes) as u64 };
        cost::of_pass(pass, cost(8, 2), |wants| {
            let one = |i: usize, flops| match wants[i] {
                Want::Skip => Cost::default(),
                want => cost(flops, 1) + cost::store(want, n, bytes),
            };
            one(MU, 1) + one(LOGVAR, 5)
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
            testing::check(&super::super::cases(&s)[1], |x| {
                let term = |(mu, logvar): (&f64, &f64)| 0.5 * (mu.powi(2) + logvar.exp() - 1.0) - 0.5 * logvar;
                let size = s.latents * s.dim();
                x[0].chunks(size).zip(x[1].chunks(size)).map(|(m, l)| m.iter().zip(l).map(term).sum()).collect()
            });
        }
    }

    #[test]
    fn is_zero_at_the_prior_and_only_there() {
        let zeros = Buffer::new(Spec::new(DType::F32, &[2, 3, 5]));
        assert_eq!(testing::forward(&GaussianKl, &[&zeros, &zeros])[0].to_f64(), [0.0, 0.0]);
        let mut mu = zeros.clone();
        mu.as_mut_slice::<f32>()[20] = 2.0;
        assert_eq!(testing::forward(&GaussianKl, &[&mu, &zeros])[0].to_f64(), [0.0, 2.0]);
    }

    #[test]
    fn latents_have_three_dimensions() {
        let mu = Spec::new(DType::F64, &[2, 3]);
        let error = GaussianKl.infer(&[mu, mu]).unwrap_err().to_string();
        assert_eq!(error, "mu is f64[2, 3], must have 3 dimensions");
    }
}
