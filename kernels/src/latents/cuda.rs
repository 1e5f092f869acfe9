//! Launches of `kernel.cu`.

use super::{DRAW, FAST_STEP, GUARD, INIT_LOGVAR, LatentDraw, LatentInit, LatentStep, Rule};
use crate::adamw;
use crate::launch::{THREADS, args};
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, DType};

pub static KERNELS: Module =
    Module::new("latents", concat!(include_str!("../adamw/step.cuh"), include_str!("kernel.cu")));

/// Numbers per block: four per thread.
const PIECE: usize = 4 * THREADS as usize;

/// Samples and numbers of a sample.
#[derive(Clone, Copy)]
struct Shape {
    samples: usize,
    size: usize,
}

impl Shape {
    fn of(tensor: &Buffer) -> Self {
        assert_eq!(tensor.dtype(), DType::F32, "training on a device is in f32");
        let samples = tensor.shape().dims()[0];
        Self { samples, size: tensor.len() / samples }
    }

    fn pieces(self) -> usize {
        self.size.div_ceil(PIECE)
    }

    fn grid(self) -> Grid {
        Grid::with_blocks([self.pieces(), self.samples, 1], THREADS)
    }
}

/// Numbers of f32 scratch memory for a sum per sample of `[samples, ..]`.
pub fn partials(latents: engine::Shape) -> usize {
    let samples = latents.dims()[0];
    samples * Shape { samples, size: latents.numel() / samples }.pieces()
}

/// Null if there is no table of noise.
fn table(given: &[&Buffer]) -> Arg {
    given.first().map_or(Arg::Pointer(0), |&noise| noise.into())
}

pub fn init(gpu: &dyn Gpu, op: &LatentInit, samples: &Buffer, noise: &[&Buffer], all: &[Buffer]) {
    let shape = Shape::of(&all[0]);
    let streams = [Arg::U64(op.noise.seed), Arg::U32(FAST_STEP), Arg::U32(INIT_LOGVAR)];
    let start = [Arg::F64(op.logvar), Arg::F64(op.logvar_std)];
    let state: Vec<Arg> = all.iter().map(Arg::from).collect();
    let args = [args![samples, table(noise)], &streams, &start, &state[..], args![shape.size]].concat();
    gpu.launch(&KERNELS.kernel("init", DType::F32), shape.grid(), &args);
}

/// `partial` is scratch memory for [`partials`] numbers.
pub fn fast_step(gpu: &dyn Gpu, op: &LatentStep, ins: &[&Buffer], state: &[Buffer], partial: Pointer) {
    // A kernel, its constants, and the tensors of the state that it works on.
    let (entry, constants, tensors) = match op.rule {
        Rule::AdamW(adamw::Rule { beta1, beta2, eps, weight_decay }) => {
            ("descend", vec![beta1, beta2, eps, weight_decay], &[0, 1, 2, 3, 4, 5, 6, 7][..])
        }
        Rule::Natural { beta } => ("natural", vec![beta, f64::from(GUARD)], &[0, 1, 2, 3, 6, 7][..]),
    };
    let [d_z, rates, samples, given @ ..] = ins else { unreachable!("three inputs or four") };
    let ([.., kl, clock], shape) = (state, Shape::of(d_z)) else { unreachable!("ten buffers of state") };
    let table_steps = given.first().map_or(0, |given| given.len() / d_z.len());
    let inputs = args![*d_z, *rates, rates.len(), *samples];
    let noise = args![table(given), table_steps, Arg::U64(op.noise.seed), Arg::U32(FAST_STEP), op.noise.renewal.code()];
    let constants: Vec<Arg> = constants.into_iter().map(Arg::F64).collect();
    let tensors: Vec<Arg> = tensors.iter().map(|&i| Arg::from(&state[i])).collect();
    let args = [inputs, noise, &constants, args![clock], &tensors, args![partial, shape.size]].concat();
    gpu.launch(&KERNELS.kernel(entry, DType::F32), shape.grid(), &args);
    finish(gpu, shape, partial, kl, clock.into());
}

/// `partial` is scratch memory for [`partials`] numbers.
pub fn draw(gpu: &dyn Gpu, op: &LatentDraw, ins: &[&Buffer], state: &[Buffer], partial: Pointer) {
    let (&[mu, logvar, samples, number], [eps, z, log_ratio]) = (ins, state) else {
        unreachable!("four inputs, three buffers of state")
    };
    let shape = Shape::of(mu);
    let [seed, site] = [Arg::U64(op.seed), Arg::U32(DRAW)];
    let args = args![mu, logvar, samples, number, seed, site, eps, z, partial, shape.size];
    gpu.launch(&KERNELS.kernel("draw", DType::F32), shape.grid(), args);
    finish(gpu, shape, partial, log_ratio, Arg::Pointer(0));
}

/// Sums the numbers of each sample's pieces.
fn finish(gpu: &dyn Gpu, shape: Shape, partial: Pointer, out: &Buffer, clock: Arg) {
    let grid = Grid::covering(shape.samples, THREADS);
    let args = args![partial, shape.samples, shape.pieces(), out, clock];
    gpu.launch(&KERNELS.kernel("finish", DType::F32), grid, args);
}
