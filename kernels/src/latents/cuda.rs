//! Launches of `kernel.cu`.

use super::{DRAW, FAST_STEP, INIT_LOGVAR, LatentAdamW, LatentDraw, LatentInit, LatentNatural, Noise, Redraw};
use crate::launch::THREADS;
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{Buffer, DType};

pub static KERNELS: Module =
    Module::new("latents", concat!(include_str!("../adamw/step.cuh"), include_str!("kernel.cu")));

/// Numbers of a block: four for each thread.
const PIECE: usize = 4 * THREADS as usize;

/// Samples and numbers of a sample.
#[derive(Clone, Copy)]
struct Shape {
    samples: usize,
    size: usize,
}

impl Shape {
    fn of(tensor: &Buffer) -> Self {
        assert_eq!(tensor.dtype(), DType::F32, "a device learns in f32");
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

/// Numbers of f32 scratch memory for a sum per sample of `[samples, ..]`, `numel` numbers in all.
pub fn partials(samples: usize, numel: usize) -> usize {
    let shape = Shape { samples, size: numel / samples };
    samples * shape.pieces()
}

/// The buffers' addresses.
fn all(buffers: &[Buffer]) -> Vec<Arg> {
    buffers.iter().map(Arg::from).collect()
}

/// Null where there is no table of noise.
fn table(given: &[&Buffer]) -> Arg {
    given.first().map_or(Arg::Pointer(0), |&noise| noise.into())
}

pub fn init(gpu: &dyn Gpu, op: &LatentInit, samples: &Buffer, noise: &[&Buffer], state: &[Buffer]) {
    let shape = Shape::of(&state[0]);
    let streams = [Arg::U64(op.noise.seed), Arg::U32(FAST_STEP), Arg::U32(INIT_LOGVAR)];
    let start = [Arg::F64(op.logvar), Arg::F64(op.logvar_std)];
    let args = [&[samples.into(), table(noise)][..], &streams, &start, &all(state), &[Arg::int(shape.size)]].concat();
    gpu.launch(&KERNELS.kernel("init", DType::F32), shape.grid(), &args);
}

/// `partial` is scratch memory for [`partials`] numbers.
pub fn step(gpu: &dyn Gpu, op: &LatentAdamW, ins: &[&Buffer], state: &[Buffer], partial: Pointer) {
    let rule = [op.beta1, op.beta2, op.eps, op.weight_decay].map(Arg::F64);
    fast_step(gpu, "descend", (op.noise, &rule, &all(&state[..8])), ins, state, partial);
}

/// `partial` is scratch memory for [`partials`] numbers.
pub fn natural(gpu: &dyn Gpu, op: &LatentNatural, ins: &[&Buffer], state: &[Buffer], partial: Pointer) {
    let rule = [op.beta1, op.beta2, op.damping].map(Arg::F64);
    let tensors = [0, 1, 2, 3, 6, 7].map(|i| Arg::from(&state[i]));
    fast_step(gpu, "natural", (op.noise, &rule, &tensors), ins, state, partial);
}

/// Launches the step `name` with its noise, its constants and the tensors of the state that it works on.
fn fast_step(
    gpu: &dyn Gpu,
    name: &'static str,
    (noise, rule, tensors): (Noise, &[Arg], &[Arg]),
    ins: &[&Buffer],
    state: &[Buffer],
    partial: Pointer,
) {
    let [d_z, rates, kl_weight, samples, given @ ..] = ins else { unreachable!("four inputs or five") };
    let ([.., kl, clock], shape) = (state, Shape::of(d_z)) else { unreachable!("ten buffers of state") };
    let table_steps = given.first().map_or(0, |given| given.len() / d_z.len());
    let redraw = Arg::int(usize::from(noise.redraw == Redraw::Fresh));
    let inputs = [(*d_z).into(), (*rates).into(), Arg::int(rates.len()), (*kl_weight).into(), (*samples).into()];
    let noise = [table(given), Arg::int(table_steps), Arg::U64(noise.seed), Arg::U32(FAST_STEP), redraw];
    let ends = [partial.into(), Arg::int(shape.size)];
    let args = [&inputs[..], &noise, rule, &[clock.into()], tensors, &ends].concat();
    gpu.launch(&KERNELS.kernel(name, DType::F32), shape.grid(), &args);
    finish(gpu, shape, partial, kl, clock.into());
}

/// `partial` is scratch memory for [`partials`] numbers.
pub fn draw(gpu: &dyn Gpu, op: &LatentDraw, ins: &[&Buffer], state: &[Buffer], partial: Pointer) {
    let (&[mu, logvar, samples, number], [eps, z, log_ratio]) = (ins, state) else {
        unreachable!("four inputs, three buffers of state")
    };
    let shape = Shape::of(mu);
    let given = [mu.into(), logvar.into(), samples.into(), number.into(), Arg::U64(op.seed), Arg::U32(DRAW)];
    let args = [&given[..], &[eps.into(), z.into(), partial.into(), Arg::int(shape.size)]].concat();
    gpu.launch(&KERNELS.kernel("draw", DType::F32), shape.grid(), &args);
    finish(gpu, shape, partial, log_ratio, Arg::Pointer(0));
}

/// A number per sample from those of its pieces.
fn finish(gpu: &dyn Gpu, shape: Shape, partial: Pointer, out: &Buffer, clock: Arg) {
    gpu.launch(
        &KERNELS.kernel("finish", DType::F32),
        Grid::covering(shape.samples, THREADS),
        &[partial.into(), Arg::int(shape.samples), Arg::int(shape.pieces()), out.into(), clock],
    );
}
