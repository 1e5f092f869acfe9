//! The diagonal Gaussian posterior q(z|x) = N(μ, σ²) with λ = log σ² (Kingma and Welling, arXiv 1312.6114):
//! [`Reparameterize`] draws from it, [`GaussianKl`] measures it against the prior N(0, I).

pub(crate) mod cpu;

use crate::case::{Case, Fill, Input, Sizes};
use crate::lanes::{map, map_pieces};
use crate::launch::{THREADS, args, over};
use crate::{check, cost, elementwise};
use engine::cuda::{Grid, Module};
use engine::{Buffer, Context, Cost, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("gaussian", include_str!("kernel.cu"));

const MU: usize = 0;
const LOGVAR: usize = 1;
const EPS: usize = 2;

/// `mu, logvar, eps [..] → z [..]`. Memory-bound.
///
/// - Formula: `z = mu + exp(logvar/2) ⊙ eps`
/// - VJP: with σ = exp(logvar/2): `d_mu = d_z`, `d_logvar = ½ d_z ⊙ eps ⊙ σ`, `d_eps = d_z ⊙ σ`
/// - Source: Kingma and Welling, arXiv 1312.6114, section 2.4
#[derive(Clone, Copy, Debug)]
pub struct Reparameterize;

impl Op for Reparameterize {
    check::names!("reparameterize": mu, logvar, eps);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let (dtype, dims) = (check::real("mu", ins[MU])?, ins[MU].shape);
        check::is("logvar", ins[LOGVAR], dtype, dims.dims())?;
        check::is("eps", ins[EPS], dtype, dims.dims())?;
        Ok(vec![Output { name: "z", spec: ins[MU] }])
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
            let (z, args) = (&outs[0], args![ins[MU], ins[LOGVAR], ins[EPS], &outs[0], outs[0].len()]);
            return over(&**gpu, z, &KERNELS, "draw", args);
        }
        with_real!(ins[MU].dtype(), T => {
            let (mu, logvar, eps) = (ins[MU].as_slice(), ins[LOGVAR].as_slice(), ins[EPS].as_slice());
            map::<T, 3>(cpu::Draw, Want::Write, [mu, logvar, eps], outs[0].as_mut_slice());
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        elementwise::pass_on(cx, wants[MU], d_y, &mut d[MU]);
        if let Device::Cuda(gpu) = cx.device {
            if cost::any_wanted(&wants[LOGVAR..]) {
                let [logvar, eps, d_logvar, d_eps] = [ins[LOGVAR], ins[EPS], &d[LOGVAR], &d[EPS]];
                let args = args![logvar, eps, d_y, wants[LOGVAR], d_logvar, wants[EPS], d_eps, d_y.len()];
                over(&**gpu, d_y, &KERNELS, "draw_backward", args);
            }
            return;
        }
        with_real!(d_y.dtype(), T => {
            let d_z = d_y.as_slice::<T>();
            if wants[LOGVAR].is_wanted() {
                let (logvar, eps) = (ins[LOGVAR].as_slice(), ins[EPS].as_slice());
                map(cpu::DrawLogvar, wants[LOGVAR], [logvar, eps, d_z], d[LOGVAR].as_mut_slice());
            }
            if wants[EPS].is_wanted() {
                map(cpu::DrawEps, wants[EPS], [ins[LOGVAR].as_slice(), d_z], d[EPS].as_mut_slice());
            }
        });
    }

    fn passes_through(&self, i: usize) -> bool {
        i == MU
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let n = ins[MU].shape.numel();
        cost::of(self, ins, pass, 4 * n, &[0, 5 * n, 3 * n])
    }
}

/// `mu, logvar [B, S, d] → kl [B]`, in nats. Memory-bound.
///
/// - Formula: `kl = ½ Σ (mu² + exp(logvar) − logvar − 1)` over a sample, each latent by lanes, then the latents in order
/// - VJP: `d_mu = d_kl · mu`, `d_logvar = ½ d_kl · (exp(logvar) − 1)`
/// - Source: Kingma and Welling, arXiv 1312.6114, appendix B
#[derive(Clone, Copy, Debug)]
pub struct GaussianKl;

impl Op for GaussianKl {
    check::names!("gaussian_kl": mu, logvar);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let dtype = check::real("mu", ins[MU])?;
        check::rank("mu", ins[MU], 3)?;
        check::is("logvar", ins[LOGVAR], dtype, ins[MU].shape.dims())?;
        Ok(vec![Output { name: "kl", spec: Spec::new(check::statistic(dtype), &ins[MU].shape.dims()[..1]) }])
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        Reads { ins: wants.iter().enumerate().map(|(i, want)| u16::from(want.is_wanted()) << i).sum(), outs: 0 }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let (samples, kernel) = (outs[0].len(), KERNELS.kernel("divergence", ins[MU].dtype()));
            let args = args![ins[MU], ins[LOGVAR], &outs[0], ins[MU].len() / samples];
            return gpu.launch(&kernel, Grid::new(samples, THREADS), args);
        }
        let d = ins[MU].shape().last();
        with_real!(ins[MU].dtype(), T => {
            cpu::kl::<T>(d, ins[MU].as_slice(), ins[LOGVAR].as_slice(), outs[0].as_mut_slice());
        })
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        if let Device::Cuda(gpu) = cx.device {
            let Some(wanted) = d.iter().find(|d| !d.is_empty()) else { return };
            let n = wanted.len();
            let args = args![ins[MU], ins[LOGVAR], d_y, wants[MU], &d[MU], wants[LOGVAR], &d[LOGVAR], n, n / d_y.len()];
            return over(&**gpu, wanted, &KERNELS, "divergence_backward", args);
        }
        with_real!(d_y.dtype(), T => {
            let d_kl = d_y.as_slice::<T>();
            for (i, &want) in wants.iter().enumerate().filter(|(_, want)| want.is_wanted()) {
                let (x, out) = ([ins[i].as_slice()], d[i].as_mut_slice());
                let size = x[0].len() / d_kl.len();
                match i {
                    MU => map_pieces(size, |b| cpu::KlMu(d_kl[b]), want, x, out),
                    _ => map_pieces(size, |b| cpu::KlLogvar(d_kl[b]), want, x, out),
                }
            }
        });
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let n = ins[MU].shape.numel();
        cost::of(self, ins, pass, 8 * n, &[n, 5 * n])
    }
}

/// Both ops on one layer's latents.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let latents = |fill| Input::new(&[s.batch, s.latents, s.dim()], fill);
    let (mu, logvar) = (latents(Fill::NORMAL), latents(Fill::Normal { mean: -0.5, std: 0.7 }));
    vec![
        Case::new("draw", Reparameterize, vec![mu.clone(), logvar.clone(), latents(Fill::NORMAL)]),
        Case::new("divergence", GaussianKl, vec![mu, logvar]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, forward};
    use engine::DType;

    #[test]
    fn matches_the_formula() {
        let draw = |x: &[Vec<f64>]| (0..x[0].len()).map(|i| x[0][i] + x[1][i].exp().sqrt() * x[2][i]).collect();
        check_all(cases, &[], |s, case, x| {
            if case == 0 {
                return draw(x);
            }
            let term = |(mu, logvar): (&f64, &f64)| 0.5 * (mu.powi(2) + logvar.exp() - 1.0) - 0.5 * logvar;
            let size = s.latents * s.dim();
            x[0].chunks(size).zip(x[1].chunks(size)).map(|(m, l)| m.iter().zip(l).map(term).sum()).collect()
        });
    }

    #[test]
    fn the_divergence_is_zero_at_the_prior_and_only_there() {
        let zeros = Buffer::new(Spec::new(DType::F32, &[2, 3, 5]));
        assert_eq!(forward(&GaussianKl, &[&zeros, &zeros])[0].to_f64(), [0.0, 0.0]);
        let mut mu = zeros.clone();
        mu.as_mut_slice::<f32>()[20] = 2.0;
        assert_eq!(forward(&GaussianKl, &[&mu, &zeros])[0].to_f64(), [0.0, 2.0]);
    }
}
