//! Launches of `kernel.cu`.

use crate::launch::{THREADS, elements};
use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("gaussian", include_str!("kernel.cu"));

pub fn reparameterize(gpu: &dyn Gpu, mu: &Buffer, logvar: &Buffer, eps: &Buffer, z: &mut Buffer) {
    let (n, dtype) = (z.len(), z.dtype());
    let args = [mu.into(), logvar.into(), eps.into(), z.into(), Arg::int(n)];
    gpu.launch(&KERNELS.kernel("draw", dtype), elements(n, dtype), &args);
}

/// The gradients of `logvar` and `eps`; buffers that are not needed are empty.
pub fn reparameterize_backward(
    gpu: &dyn Gpu,
    wants: [Want; 2],
    logvar: &Buffer,
    eps: &Buffer,
    d_z: &Buffer,
    [d_logvar, d_eps]: [&mut Buffer; 2],
) {
    if wants == [Want::Skip; 2] {
        return;
    }
    let (n, dtype) = (d_z.len(), d_z.dtype());
    let [want_logvar, want_eps] = wants.map(Arg::from);
    let args =
        [logvar.into(), eps.into(), d_z.into(), want_logvar, d_logvar.into(), want_eps, d_eps.into(), Arg::int(n)];
    gpu.launch(&KERNELS.kernel("draw_backward", dtype), elements(n, dtype), &args);
}

pub fn kl(gpu: &dyn Gpu, mu: &Buffer, logvar: &Buffer, kl: &mut Buffer) {
    let (samples, size) = (kl.len(), mu.len() / kl.len());
    gpu.launch(
        &KERNELS.kernel("divergence", mu.dtype()),
        Grid::new(samples, THREADS),
        &[mu.into(), logvar.into(), kl.into(), Arg::int(size)],
    );
}

/// The gradients of `mu` and `logvar`; buffers that are not needed are empty.
pub fn kl_backward(
    gpu: &dyn Gpu,
    wants: [Want; 2],
    mu: &Buffer,
    logvar: &Buffer,
    d_kl: &Buffer,
    d_ins: [&mut Buffer; 2],
) {
    let Some(gradient) = wants.iter().position(|want| want.is_wanted()) else { return };
    let (n, dtype) = (d_ins[gradient].len(), d_ins[gradient].dtype());
    let [want_mu, want_logvar] = wants.map(Arg::from);
    let [d_mu, d_logvar] = d_ins;
    let sizes = [n, n / d_kl.len()].map(Arg::int);
    let args = [mu.into(), logvar.into(), d_kl.into(), want_mu, d_mu.into(), want_logvar, d_logvar.into()];
    gpu.launch(&KERNELS.kernel("divergence_backward", dtype), elements(n, dtype), &[&args[..], &sizes].concat());
}
