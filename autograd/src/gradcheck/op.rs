//! The check of an op.

use super::numeric::{Numeric, Value};
use super::report::{Check, Failure, Place, Report, Worst, Wrong};
use super::{Options, dot, first_difference, normal};
use engine::op::infer;
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Eager, Error, Op, Spec, Want};
use std::collections::{BTreeMap, BTreeSet};

/// Keys the random weights of the result.
const COTANGENT: u32 = 1000;
/// Keys the numbers that gradients are added to.
const INTO: u32 = 2000;
/// Keys the subsets of many inputs.
const SUBSETS: u32 = 4000;

/// Checks every differentiable input of `op` for every subset of wanted inputs. With more than six such inputs: each alone, all
/// but one, all, and 32 random subsets.
///
/// It compares written gradients with central differences. It then compares these with gradients that are added,
/// gradients that are written for some inputs and added for others, gradients of the fused pass, and gradients that the
/// op claims to pass through.
///
/// # Errors
/// The first input with a wrong gradient, with its worst entry. Also an error if the op refuses the inputs or their
/// number, or if they are not f64.
pub fn check_op(op: &dyn Op, ins: &[Buffer], options: &Options) -> Result<Report, Failure> {
    let specs: Vec<Spec> = ins.iter().map(Buffer::spec).collect();
    let outputs = infer(op, &specs).map_err(|e| e.at(op.name()))?;
    let wanted: Vec<usize> = (0..ins.len()).filter(|&i| op.differentiable(i)).collect();
    if wanted.is_empty() {
        return Ok(Report::default());
    }
    let named = wanted.iter().map(|&i| (op.arguments()[i], specs[i]));
    for (name, spec) in named.chain([(outputs[0].name, outputs[0].spec)]) {
        if spec.dtype != DType::F64 {
            return Err(Error::usage(format!("{} {name} is {spec}, must be f64 to be checked", op.name())).into());
        }
    }
    let eager = Eager { device: &Device::CPU, op };
    let outs = eager.forward(ins);
    let w = normal(options.seed, COTANGENT, outs[0].len());
    let d_out = Buffer::from_f64(DType::F64, outs[0].shape().dims(), &w);
    let numeric = wanted.iter().map(|&i| (i, numeric(eager, ins, i, &w, options))).collect();
    let into = specs.iter().zip(INTO..).map(|(spec, site)| {
        let values = normal(options.seed, site, spec.shape.numel());
        Buffer::from_f64(spec.dtype, spec.shape.dims(), &values)
    });
    let into = into.collect();
    let mut trial = Trial { ins, eager, outs, w, d_out, numeric, into, seed: options.seed, report: Report::default() };
    for subset in subsets(wanted.len(), options.seed) {
        let chosen = wanted.iter().enumerate().filter(|(p, _)| subset >> p & 1 == 1);
        let chosen: Vec<usize> = chosen.map(|(_, &i)| i).collect();
        trial.subset(&chosen)?;
    }
    Ok(trial.report)
}

/// Subsets of `count` inputs, a bit for each input.
pub(super) fn subsets(count: usize, seed: u64) -> BTreeSet<u32> {
    let all = (1u32 << count) - 1;
    if count <= 6 {
        return (1..=all).collect();
    }
    let random = (0..32).map(|i| Stream::new(seed, SUBSETS).words(i)[0] & all).filter(|&subset| subset != 0);
    (0..count).flat_map(|i| [1 << i, all & !(1 << i)]).chain([all]).chain(random).collect()
}

fn numeric(eager: Eager, ins: &[Buffer], i: usize, w: &[f64], options: &Options) -> Numeric {
    let mut moved = ins.to_vec();
    let value = |x: &[f64]| {
        moved[i].set_f64(x);
        let y = eager.forward(&moved).swap_remove(0);
        let y = y.as_slice::<f64>();
        Value { value: dot(y, w), scale: y.iter().zip(w).map(|(y, w)| (y * w).abs()).sum() }
    };
    Numeric::of(i, &ins[i].to_f64(), value, options)
}

struct Trial<'a> {
    ins: &'a [Buffer],
    eager: Eager<'a>,
    outs: Vec<Buffer>,
    /// The weights of the random projection of the result, and the same as its gradient.
    w: Vec<f64>,
    d_out: Buffer,
    /// The numeric derivatives of each differentiable input, by its number.
    numeric: BTreeMap<usize, Numeric>,
    /// The numbers that gradients are added to.
    into: Vec<Buffer>,
    seed: u64,
    report: Report,
}

impl Trial<'_> {
    fn wants(&self, chosen: &[usize], want: impl Fn(usize) -> Want) -> Vec<Want> {
        (0..self.ins.len()).map(|i| if chosen.contains(&i) { want(i) } else { Want::Skip }).collect()
    }

    fn refuse(&self, chosen: &[usize], i: usize, check: Check, worst: Option<Worst>) -> Result<(), Failure> {
        let names = self.eager.op.arguments();
        let wanted: Vec<&str> = chosen.iter().map(|&i| names[i]).collect();
        Wrong::refuse(self.eager.op.name(), names[i], &wanted, check, worst, self.seed)
    }

    fn subset(&mut self, chosen: &[usize]) -> Result<(), Failure> {
        let write = self.wants(chosen, |_| Want::Write);
        let add = self.wants(chosen, |_| Want::Add);
        let mixed = self.wants(chosen, |i| if i.is_multiple_of(2) { Want::Write } else { Want::Add });
        let vjp = |wants: &[Want]| self.eager.vjp(wants, self.ins, &self.outs, &self.d_out, &self.into);
        // The want for one input must not change another input's gradient.
        let (grads, added, both) = (vjp(&write), vjp(&add), vjp(&mixed));
        for &i in chosen {
            let grad = grads[i].to_f64();
            let same = self.eager.op.passes_through(i) && self.ins[i].spec() == self.outs[0].spec();
            let passed = if same { first_difference(&grad, &self.w) } else { None };
            self.refuse(chosen, i, Check::PassedThrough, passed)?;
            let numeric = self.numeric[&i].compare(self.eager.op.arguments()[i], &grad, &mut self.report);
            self.refuse(chosen, i, Check::Numeric, numeric)?;
            let sum: Vec<f64> = self.into[i].to_f64().iter().zip(&grad).map(|(base, grad)| base + grad).collect();
            let worst = worst_beyond_rounding(&added[i].to_f64(), &sum, largest(&grad));
            self.refuse(chosen, i, Check::Added, worst)?;
            let expected = if mixed[i] == Want::Write { &grads[i] } else { &added[i] };
            self.refuse(chosen, i, Check::SameBits, first_difference(&both[i].to_f64(), &expected.to_f64()))?;
        }
        if self.eager.op.fuses() { self.fused(chosen, &write, &add) } else { Ok(()) }
    }

    /// The fused pass gives the outputs of the forward pass bit for bit, and the gradients of the VJP up to rounding,
    /// because it may add in another order.
    fn fused(&mut self, chosen: &[usize], write: &[Want], add: &[Want]) -> Result<(), Failure> {
        let one = Buffer::from_f64(DType::F64, self.outs[0].shape().dims(), &vec![1.0; self.outs[0].len()]);
        for wants in [write, add] {
            let plain = self.eager.vjp(wants, self.ins, &self.outs, &one, &self.into);
            let (outs, fused) = self.eager.forward_vjp(wants, self.ins, &self.into);
            for (got, expected) in outs.iter().zip(&self.outs) {
                let worst = first_difference(&got.to_f64(), &expected.to_f64());
                self.refuse(chosen, chosen[0], Check::Fused, worst)?;
            }
            for &i in chosen {
                let expected = plain[i].to_f64();
                let worst = worst_beyond_rounding(&fused[i].to_f64(), &expected, largest(&expected));
                self.refuse(chosen, i, Check::Fused, worst)?;
            }
        }
        Ok(())
    }
}

/// The magnitude of the largest number, at least 1. Non-finite numbers are ignored, so that they do not excuse others.
pub(super) fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(1.0, f64::max)
}

/// The number with the largest error, if rounding of numbers of magnitude `scale` does not explain it.
fn worst_beyond_rounding(got: &[f64], expected: &[f64], scale: f64) -> Option<Worst> {
    let off = |j: usize| (got[j] - expected[j]).abs();
    // Written so that NaN fails, unless the expected number is not finite.
    let close = |j: usize| off(j) <= 1e-11 * scale;
    let wrong = (0..got.len()).filter(|&j| expected[j].is_finite() && !close(j));
    wrong.max_by(|&a, &b| off(a).total_cmp(&off(b))).map(|j| (Place::Entry(j), got[j], expected[j]))
}
