//! Launches of `kernel.cu`.

use crate::launch::{THREADS, args, over};
use engine::cuda::{Gpu, Grid, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("gaussian", include_str!("kernel.cu"));

pub fn reparameterize(gpu: &dyn Gpu, mu: &Buffer, logvar: &Buffer, eps: &Buffer, z: &Buffer) {
    over(gpu, z, &KERNELS, "draw", args![mu, logvar, eps, z, z.len()]);
}

/// The gradients of `logvar` and `eps`; buffers that are not needed are empty.
pub fn reparameterize_backward(
    gpu: &dyn Gpu,
    wants: [Want; 2],
    logvar: &Buffer,
    eps: &Buffer,
    d_z: &Buffer,
    [d_logvar, d_eps]: [&Buffer; 2],
) {
    if wants == [Want::Skip; 2] {
        return;
    }
    let args = args![logvar, eps, d_z, wants[0], d_logvar, wants[1], d_eps, d_z.len()];
    over(gpu, d_z, &KERNELS, "draw_backward", args);
}

pub fn kl(gpu: &dyn Gpu, mu: &Buffer, logvar: &Buffer, kl: &Buffer) {
    let (samples, size) = (kl.len(), mu.len() / kl.len());
    let grid = Grid::new(samples, THREADS);
    gpu.launch(&KERNELS.kernel("divergence", mu.dtype()), grid, args![mu, logvar, kl, size]);
}

/// The gradients of `mu` and `logvar`; buffers that are not needed are empty.
pub fn kl_backward(gpu: &dyn Gpu, wants: [Want; 2], mu: &Buffer, logvar: &Buffer, d_kl: &Buffer, d_ins: [&Buffer; 2]) {
    let Some(wanted) = wants.iter().position(|want| want.is_wanted()) else { return };
    let n = d_ins[wanted].len();
    let args = args![mu, logvar, d_kl, wants[0], d_ins[0], wants[1], d_ins[1], n, n / d_kl.len()];
    over(gpu, d_ins[wanted], &KERNELS, "divergence_backward", args);
}
