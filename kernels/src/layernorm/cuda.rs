//! Launches of `kernel.cu`.

use engine::cuda::{Arg, Gpu, Grid, Module};
use engine::{Buffer, Want};

pub static KERNELS: Module = Module::new("layernorm", include_str!("kernel.cu"));

/// Threads of a block where a warp has a row: eight warps.
const THREADS: u32 = 256;
const WARPS: usize = THREADS as usize / 32;

pub fn forward(
    gpu: &dyn Gpu,
    eps: f64,
    [x, gain, bias]: [&Buffer; 3],
    y: &mut Buffer,
    mean: &mut Buffer,
    rstd: &mut Buffer,
) {
    let (rows, d) = (x.shape().rows(), gain.len());
    let inputs = [x.into(), gain.into(), bias.into()];
    let outputs = [y.into(), mean.into(), rstd.into(), Arg::F32(eps as f32), Arg::int(rows), Arg::int(d)];
    let grid = Grid::new(rows.div_ceil(WARPS), THREADS);
    gpu.launch(&KERNELS.kernel("forward", x.dtype()), grid, &[&inputs[..], &outputs].concat());
}

/// What the gradients need; the first three may be empty for the bias's alone.
pub struct Known<'a> {
    pub x: &'a Buffer,
    pub mean: &'a Buffer,
    pub rstd: &'a Buffer,
    pub d_y: &'a Buffer,
}

impl Known<'_> {
    fn args(&self) -> [Arg; 4] {
        [self.x.into(), self.mean.into(), self.rstd.into(), self.d_y.into()]
    }
}

pub fn vjp_x(gpu: &dyn Gpu, known: &Known, gain: &Buffer, want: Want, d_x: &mut Buffer) {
    let (rows, d) = (known.d_y.shape().rows(), gain.len());
    let more = [gain.into(), want.into(), d_x.into(), Arg::int(rows), Arg::int(d)];
    let grid = Grid::new(rows.div_ceil(WARPS), THREADS);
    gpu.launch(&KERNELS.kernel("backward", known.d_y.dtype()), grid, &[&known.args()[..], &more].concat());
}

pub fn vjp_learned(gpu: &dyn Gpu, known: &Known, wants: [Want; 2], d_gain: &mut Buffer, d_bias: &mut Buffer) {
    let (rows, d) = (known.d_y.shape().rows(), known.d_y.shape().last());
    let more = [wants[0].into(), d_gain.into(), wants[1].into(), d_bias.into(), Arg::int(rows), Arg::int(d)];
    let grid = Grid::new(d.div_ceil(32), 1024);
    gpu.launch(&KERNELS.kernel("backward_learned", known.d_y.dtype()), grid, &[&known.args()[..], &more].concat());
}
