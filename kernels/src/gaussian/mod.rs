//! The diagonal Gaussian posterior q(z|x) = N(μ, σ²) with λ = log σ² (Kingma and Welling, arXiv 1312.6114):
//! [`Reparameterize`] draws from it, [`GaussianKl`] measures it against the prior N(0, I).

pub(crate) mod cpu;
pub(crate) mod cuda;
mod kl;
mod reparameterize;

pub use kl::GaussianKl;
pub use reparameterize::Reparameterize;

use crate::case::{Case, Fill, Input, Sizes};

/// Both ops on one layer's latents.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let latents = |fill| Input::new(&[s.batch, s.latents, s.dim()], fill);
    let (mu, logvar) = (latents(Fill::NORMAL), latents(Fill::Normal { mean: -0.5, std: 0.7 }));
    vec![
        Case::new("draw", Reparameterize, vec![mu.clone(), logvar.clone(), latents(Fill::NORMAL)]),
        Case::new("divergence", GaussianKl, vec![mu, logvar]),
    ]
}
