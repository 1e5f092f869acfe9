//! In-place update: stochastic gradient descent with momentum on the clipped gradient, with the arithmetic of PyTorch's
//! `clip_grad_norm_` and `SGD`. [`adamw`](crate::adamw) shows how to put an optimiser into a plan.

mod cpu;

use crate::adamw::{clip_factor, learned};
use crate::launch::{args, elements};
use engine::cuda::{Arg, Module};
use engine::simd::Real;
use engine::{Buffer, Context, Cost, DType, Device, Spec, Update, with_real};

pub(crate) static KERNELS: Module =
    Module::new("sgd", concat!(include_str!("../adamw/step.cuh"), include_str!("kernel.cu")));

/// One step of stochastic gradient descent on one parameter, its gradient clipped to a global norm:
/// ```text
/// g = grad · min(1, clip / (√Σ norms + 1e-6)) + weight_decay · w
/// m ← momentum · m + g
/// w ← w − rate · m                      or, with nesterov,  w ← w − rate · (momentum · m + g)
/// ```
/// - Formula: above
/// - Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, in the form of
///   PyTorch's `SGD` without dampening
///
/// Ins: `grad [..]`, `norms [P]` (every parameter's [`SquaredNorm`](crate::adamw::SquaredNorm)), `schedule [2]` = rate and step
/// number, which is not used. State: `w` and `m`, both of the gradient's spec; the momentum starts as zeros. Without momentum
/// there is only `w`.
///
/// If the global norm is not finite, nothing changes; the caller can see it in `norms`. Memory-bound: one pass.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// Decay of the momentum, 0 for none.
    pub momentum: f64,
    /// Whether the step is taken where the momentum will lead; needs momentum.
    pub nesterov: bool,
    /// Weight decay, added to the gradient: a penalty ½ · weight_decay · w².
    pub weight_decay: f64,
    /// Largest global norm of the gradient; infinity for no clipping.
    pub clip: f64,
}

impl Update for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        let &[grad, norms, schedule] = ins else { unreachable!("three inputs") };
        let (mut none, mut rest) = (Buffer::empty(), state.iter_mut());
        let w = rest.next().expect("a parameter");
        let m = rest.next();
        assert_eq!(m.is_some(), self.momentum != 0.0, "a buffer of momentum if there is momentum");
        assert!(m.is_some() || !self.nesterov, "nesterov needs momentum");
        let m = m.unwrap_or(&mut none);
        if let Device::Cuda(gpu) = cx.device {
            let constants = [self.momentum, self.weight_decay, self.clip].map(Arg::F64);
            let known = args![grad, norms, norms.len(), schedule, usize::from(self.nesterov)];
            let args = [known, &constants[..], args![w, m, grad.len()]].concat();
            return gpu.launch(&KERNELS.kernel("update", learned(grad)), elements(grad.len(), DType::F32), &args);
        }
        with_real!(grad.dtype(), T => {
            let Some(clip) = clip_factor::<T>(norms, self.clip) else { return };
            let m = if m.is_empty() { &mut [][..] } else { m.as_mut_slice() };
            let factors = [clip, self.weight_decay, self.momentum, schedule.as_slice::<T>()[0].to_f64()];
            cpu::sgd(factors.map(T::from_f64), self.nesterov, grad.as_slice(), w.as_mut_slice(), m);
        });
    }

    /// Per number: clipping, decay and step; one or two more with momentum.
    fn cost(&self, ins: &[Spec], state: &[Spec]) -> Cost {
        let n = ins[0].shape.numel() as u64;
        let momentum = if self.momentum == 0.0 { 0 } else { 2 + 2 * u64::from(self.nesterov) };
        Cost { flops: (5 + momentum) * n, bytes: (1 + 2 * state.len() as u64) * ins[0].bytes() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::CHUNK;
    use crate::testing::{apply, distance, normal, same_bits};

    const RULES: [Sgd; 4] = [
        Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0, clip: f64::INFINITY },
        Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.1, clip: 1.0 },
        Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.1, clip: 1.0 },
        Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.1, clip: f64::INFINITY },
    ];

    /// More than one chunk, and a part of sixteen lanes.
    const SIZE: usize = CHUNK + 21;

    /// PyTorch's order, one number at a time. Its first momentum is the gradient itself.
    fn textbook(rule: Sgd, w: &mut f64, m: &mut Option<f64>, g: f64, rate: f64) {
        let g = g + rule.weight_decay * *w;
        let step = if rule.momentum == 0.0 {
            g
        } else {
            let next = m.map_or(g, |m| rule.momentum * m + g);
            *m = Some(next);
            if rule.nesterov { g + rule.momentum * next } else { next }
        };
        *w -= rate * step;
    }

    /// Three steps at a norm of 3, so that some rules clip to a third; w, and m if there is one.
    fn learn(rule: Sgd, dtype: DType) -> Vec<Buffer> {
        let mut state = vec![normal(dtype, &[SIZE], 0)];
        state.extend((rule.momentum > 0.0).then(|| Buffer::new(Spec::new(dtype, &[SIZE]))));
        let norms = Buffer::from_f64(dtype, &[2], &[4.0, 5.0]);
        for t in 1..=3 {
            let schedule = Buffer::from_f64(dtype, &[2], &[0.25, f64::from(t)]);
            apply(&rule, &[&normal(dtype, &[SIZE], t), &norms, &schedule], &mut state);
        }
        state
    }

    #[test]
    fn matches_the_textbook() {
        for rule in RULES {
            let mut books: Vec<_> = normal(DType::F64, &[SIZE], 0).to_f64().into_iter().map(|w| (w, None)).collect();
            for t in 1..=3 {
                let factor = if rule.clip == 1.0 { 1.0 / (3.0 + 1e-6) } else { 1.0 };
                for ((w, m), g) in books.iter_mut().zip(normal(DType::F64, &[SIZE], t).to_f64()) {
                    textbook(rule, w, m, factor * g, 0.25);
                }
            }
            let (doubles, singles) = (learn(rule, DType::F64), same_bits("three steps", || learn(rule, DType::F32)));
            let expected = [books.iter().map(|b| b.0).collect(), books.iter().filter_map(|b| b.1).collect::<Vec<_>>()];
            assert_eq!(doubles.len(), 1 + usize::from(!expected[1].is_empty()));
            for ((double, single), expected) in doubles.iter().zip(&singles).zip(expected) {
                assert!(distance(&double.to_f64(), &expected) < 1e-14, "{rule:?}");
                assert!(distance(&single.to_f64(), &double.to_f64()) < 1e-6, "{rule:?}");
            }
        }
    }

    #[test]
    fn a_norm_that_is_not_finite_changes_nothing() {
        for rule in [RULES[1], RULES[3]] {
            let [grad, schedule] = [[1.0f32, 2.0], [0.1, 1.0]].map(|x| Buffer::from_slice(&[2], &x));
            let mut state = vec![Buffer::from_slice(&[2], &[1.0f32; 2]); if rule.nesterov { 2 } else { 1 }];
            apply(&rule, &[&grad, &Buffer::from_slice(&[1], &[f32::NAN]), &schedule], &mut state);
            assert!(state.iter().all(|b| b.to_f64() == [1.0; 2]));
        }
    }
}
