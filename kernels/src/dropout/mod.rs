//! Dropout with counter-based noise: the mask is drawn again in the backward pass, not stored.

mod cpu;

use crate::case::{Case, Fill, Input, Sizes};
use crate::launch::{THREADS, args};
use crate::{check, cost};
use engine::cuda::{Arg, Grid, Module};
use engine::rng::Stream;
use engine::{Buffer, Context, Cost, DType, Device, Op, Output, Pass, Reads, Result, Spec, Want, with_real};

pub(crate) static KERNELS: Module = Module::new("dropout", include_str!("kernel.cu"));

/// Elements that share a block of four random words: sixteen bits each.
const PER_BLOCK: usize = 8;

/// `x [..], step i32 [1] → y [..]`.
///
/// - Formula: `y = x ⊙ m / (1 − p)`, where each element of the mask m is 0 with probability p, else 1
/// - VJP: `d_x = d_y ⊙ m / (1 − p)`
/// - Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014
///
/// The mask depends on the seed, the site, the step and the element's place in x, so it is the same on every device. A training
/// loop increments the step, a leaf of its graph. A sample's mask depends on its place in the batch, but not on the size of the
/// batch. Sixteen random bits per element keep the op near memory bandwidth.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// The probability p in [0, 1) that an element becomes zero. It is rounded to a multiple of 2⁻¹⁶ below 1.
    pub probability: f64,
    /// The run's seed.
    pub seed: u64,
    /// Where in the model the op is used: sites have independent masks.
    pub site: u32,
}

impl Op for Dropout {
    check::names!("dropout": x, step);

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let p = self.probability;
        check::real("x", ins[0])?;
        check::is("step", ins[1], DType::I32, &[1])?;
        check::that((0.0..1.0).contains(&p), || format!("probability is {p}, must be at least 0 and below 1"))?;
        Ok(vec![Output { name: "y", spec: ins[0] }])
    }

    fn differentiable(&self, i: usize) -> bool {
        i == 0
    }

    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::of(&[1], &[])
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        self.apply(cx, Want::Write, ins[0], ins[1], &mut outs[0]);
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        self.apply(cx, wants[0], d_y, ins[1], &mut d[0]);
    }

    /// A product per element; random numbers are integers.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let n = ins[0].shape.numel();
        cost::of(self, ins, pass, n, &[n])
    }
}

impl Dropout {
    /// The sixteen-bit numbers below this one stand for dropped elements; and 1/(1 − p).
    fn threshold(&self) -> (u16, f64) {
        let all = f64::from(1 << 16);
        let dropped = (self.probability * all).round().min(all - 1.0);
        (dropped as u16, all / (all - dropped))
    }

    fn apply(&self, cx: &Context, want: Want, x: &Buffer, step: &Buffer, y: &mut Buffer) {
        let (dropped, scale) = self.threshold();
        if let Device::Cuda(gpu) = cx.device {
            let (seed, site) = (Arg::U64(self.seed), Arg::U32(self.site));
            let args = args![x, step, want, &*y, y.len(), seed, site, Arg::U32(dropped.into()), Arg::F32(scale as f32)];
            let grid = Grid::covering(x.len().div_ceil(PER_BLOCK), THREADS);
            return gpu.launch(&KERNELS.kernel("dropout", x.dtype()), grid, args);
        }
        let stream = Stream::new(self.seed, self.site).step(step.as_slice::<i32>()[0] as u32);
        with_real!(x.dtype(), T => {
            cpu::apply::<T>(stream, dropped, scale, want, x.as_slice(), y.as_mut_slice());
        });
    }
}

/// The hidden layer of one sample, because masks depend on the place in the batch.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let op = Dropout { probability: 0.3, seed: 5, site: 2 };
    let step = Input::new(&[1], Fill::Integers { below: 1000 });
    vec![Case::new("hidden", op, vec![Input::normal(&[s.tokens, s.ffn]), step])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_all, forward, normal, refuses};

    #[test]
    fn matches_the_formula() {
        // More than a chunk, and parts of blocks.
        let large = Sizes { batch: 1, tokens: 257, heads: 1, head_dim: 2, window: 1, latents: 1, ffn: 35, vocab: 2 };
        check_all(cases, &[large], |_, _, x| {
            let stream = Stream::new(5, 2).step(x[1][0] as u32);
            let kept = |i: usize| {
                let word = stream.words((i / 8) as u32)[i % 8 / 2];
                let bits = if i.is_multiple_of(2) { word & 0xFFFF } else { word >> 16 };
                f64::from(bits) / 65536.0 >= 0.3
            };
            let probability = 1.0 - (0.3f64 * 65536.0).round() / 65536.0;
            x[0].iter().enumerate().map(|(i, x)| if kept(i) { x / probability } else { 0.0 }).collect()
        });
    }

    fn dropped(op: Dropout, x: &Buffer, step: i32) -> Vec<f64> {
        forward(&op, &[x, &Buffer::from_slice(&[1], &[step])])[0].to_f64()
    }

    #[test]
    fn masks_have_the_probability_and_are_independent() {
        let x = Buffer::from_slice(&[100_000], &[1.0f32; 100_000]);
        for p in [0.0, 0.001, 0.1, 0.5, 0.97] {
            let op = Dropout { probability: p, seed: 1, site: 1 };
            let y = dropped(op, &x, 1);
            let zeros = y.iter().filter(|&&y| y == 0.0).count() as f64;
            let deviation = (zeros - 1e5 * p) / (1e5 * p * (1.0 - p)).sqrt().max(1.0);
            assert!(deviation.abs() < 4.0, "p = {p}: {zeros} zeros");
            assert!(y.iter().all(|&y| y == 0.0 || (y * (1.0 - p) - 1.0).abs() < 3e-4), "p = {p}");
        }
        let op = Dropout { probability: 0.5, seed: 1, site: 1 };
        let y = dropped(op, &x, 1);
        let others = [
            (Dropout { seed: 2, ..op }, 1),
            (Dropout { site: 2, ..op }, 1),
            (Dropout { seed: 1 << 32 | 1, ..op }, 1),
            (op, 2),
        ];
        for (op, step) in others {
            let same = dropped(op, &x, step).iter().zip(&y).filter(|(a, b)| a == b).count();
            assert!((49_000..51_000).contains(&same), "{op:?}, step {step}: {same} equal elements");
        }
        // Neighbours, and the elements of a group that is drawn together.
        for distance in [1, 2, 3, 4, 8, 16, 128] {
            let same = y.iter().zip(&y[distance..]).filter(|(a, b)| a == b).count();
            assert!((49_000..51_000).contains(&same), "{same} elements are as number {distance} after them");
        }
    }

    /// The first samples of a batch are dropped alike in a batch of any size.
    #[test]
    fn larger_batches_begin_alike() {
        let x = normal(DType::F32, &[9000], 1);
        let op = Dropout { probability: 0.4, seed: 3, site: 0 };
        let whole = dropped(op, &x, 7);
        for len in [1, 15, 130, 8200] {
            let part = Buffer::from_slice(&[len], &x.as_slice::<f32>()[..len]);
            assert_eq!(dropped(op, &part, 7), whole[..len]);
        }
    }

    #[test]
    fn extremes() {
        let x = Buffer::from_slice(&[3], &[1.0f32, f32::NAN, -2.0]);
        let none = dropped(Dropout { probability: 0.0, seed: 1, site: 1 }, &x, 0);
        assert!(none[0] == 1.0 && none[1].is_nan() && none[2] == -2.0, "{none:?}");
        // A dropped NaN stays a NaN.
        let almost_all = dropped(Dropout { probability: 1.0 - 1e-9, seed: 1, site: 1 }, &x, 0);
        assert!(almost_all[0] == 0.0 && almost_all[1].is_nan() && almost_all[2] == 0.0, "{almost_all:?}");
        for p in ["-0.1", "1", "NaN"] {
            let op = Dropout { probability: p.parse().unwrap(), seed: 0, site: 0 };
            refuses(&op, "f32[2] i32[1]", &format!("probability is {p}, must be at least 0 and below 1"));
        }
    }
}
