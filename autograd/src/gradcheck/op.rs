//! The check of an op.

use super::bench::Bench;
use super::numeric::{Numeric, Value, derivative};
use super::report::{Check, Failure, Place, Reason, Report, Wrong};
use super::{Options, dot};
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Error, Op, Spec, Want};

/// The sites of the random numbers that a check draws.
mod site {
    pub const COTANGENT: u32 = 1000;
    pub const INTO: u32 = 2000;
    pub const DIRECTION: u32 = 4000;
}

/// Checks every differentiable input of `op` for every subset of wanted inputs.
///
/// Against central differences: the gradients that are written. Against those: gradients that are added, that are written
/// for some inputs and added for others, that the fused pass gives, and that the op says it passes through. And the
/// second derivative, by differences of gradients, must be symmetric.
///
/// # Errors
/// The first input whose gradient is wrong, with its worst entry; or that the op refuses the inputs, takes more or fewer, or
/// they are not f64.
pub fn check_op(op: &dyn Op, ins: &[Buffer], options: &Options) -> Result<Report, Failure> {
    let (named, given) = (op.arguments(), ins.len());
    if named.len() != given {
        let message = format!("takes {} inputs ({}), got {given}", named.len(), named.join(", "));
        return Err(Error::usage(message).at(op.name()).into());
    }
    let specs: Vec<Spec> = ins.iter().map(Buffer::spec).collect();
    let outputs = op.infer(&specs).map_err(|e| e.at(op.name()))?;
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
    let mut bench = Bench::new(&Device::Cpu, op, ins);
    let outs = bench.forward(ins);
    let mut w = vec![0.0; outs[0].len()];
    Stream::new(options.seed, site::COTANGENT).fill_normal(&mut w, |x| x);
    let d_out = Buffer::from_f64(DType::F64, outs[0].shape().dims(), &w);
    let numeric = wanted.iter().map(|&i| numeric(&mut bench, ins, i, &w, options)).collect();
    let into = ins.iter().zip(0..).map(|(b, i)| normal(b.spec(), options.seed, site::INTO + i)).collect();
    let mut trial = Trial { op, ins, bench, outs, w, d_out, wanted, numeric, into, options, report: Report::default() };
    for subset in 1u32..1 << trial.wanted.len() {
        let chosen: Vec<usize> =
            trial.wanted.iter().enumerate().filter(|(p, _)| subset >> p & 1 == 1).map(|(_, &i)| i).collect();
        trial.subset(&chosen).map_err(|wrong| Failure::Wrong(Box::new(wrong)))?;
    }
    trial.symmetry().map_err(|wrong| Failure::Wrong(Box::new(wrong)))?;
    Ok(trial.report)
}

fn normal(spec: Spec, seed: u64, site: u32) -> Buffer {
    let mut values = vec![0.0; spec.shape.numel()];
    Stream::new(seed, site).fill_normal(&mut values, |x| x);
    Buffer::from_f64(spec.dtype, spec.shape.dims(), &values)
}

fn numeric(bench: &mut Bench, ins: &[Buffer], i: usize, w: &[f64], options: &Options) -> Numeric {
    let mut moved = ins.to_vec();
    let value = |x: &[f64]| {
        moved[i].set_f64(x);
        let y = bench.forward(&moved).swap_remove(0);
        let y = y.as_slice::<f64>();
        Value { value: dot(y, w), scale: y.iter().zip(w).map(|(y, w)| (y * w).abs()).sum() }
    };
    Numeric::of(i, &ins[i].to_f64(), value, options)
}

struct Trial<'a> {
    op: &'a dyn Op,
    ins: &'a [Buffer],
    bench: Bench<'a>,
    outs: Vec<Buffer>,
    /// The weights of the random projection of the result, and the same as its gradient.
    w: Vec<f64>,
    d_out: Buffer,
    /// The differentiable inputs, and the numeric derivatives of each.
    wanted: Vec<usize>,
    numeric: Vec<Numeric>,
    /// What gradients are added to.
    into: Vec<Buffer>,
    options: &'a Options,
    report: Report,
}

impl Trial<'_> {
    fn wants(&self, chosen: &[usize], want: impl Fn(usize) -> Want) -> Vec<Want> {
        (0..self.ins.len()).map(|i| if chosen.contains(&i) { want(i) } else { Want::Skip }).collect()
    }

    fn wrong(&self, chosen: &[usize], i: usize, check: Check, (place, claimed, expected): (Place, f64, f64)) -> Wrong {
        let name = |i: usize| self.op.arguments()[i].to_string();
        let wanted = chosen.iter().map(|&i| name(i)).collect();
        let (op, seed) = (self.op.name().to_string(), self.options.seed);
        Wrong { op, input: name(i), place, claimed, expected, check, wanted, seed }
    }

    fn subset(&mut self, chosen: &[usize]) -> Result<(), Wrong> {
        let write = self.wants(chosen, |_| Want::Write);
        let add = self.wants(chosen, |_| Want::Add);
        let mixed = self.wants(chosen, |i| if i.is_multiple_of(2) { Want::Write } else { Want::Add });
        let grads = self.bench.vjp(&write, self.ins, &self.outs, &self.d_out, &[]);
        for &i in chosen {
            let grad = grads[i].to_f64();
            if self.op.passes_through(i)
                && let Some(worst) = first_difference(&grad, &self.w)
            {
                return Err(self.wrong(chosen, i, Check::PassedThrough, worst));
            }
            let position = self.wanted.iter().position(|&j| j == i).expect("a wanted input");
            let name = self.op.arguments()[i];
            self.numeric[position]
                .compare(name, &grad, self.options, &mut self.report)
                .map_err(|worst| self.wrong(chosen, i, Check::Numeric, worst))?;
        }
        let added = self.bench.vjp(&add, self.ins, &self.outs, &self.d_out, &self.into);
        // What one input wants must not change another's gradient.
        let both = self.bench.vjp(&mixed, self.ins, &self.outs, &self.d_out, &self.into);
        for &i in chosen {
            self.added(chosen, i, &grads[i].to_f64(), &added[i].to_f64())?;
            let expected = if mixed[i] == Want::Write { &grads[i] } else { &added[i] };
            if let Some(worst) = first_difference(&both[i].to_f64(), &expected.to_f64()) {
                return Err(self.wrong(chosen, i, Check::SameBits, worst));
            }
        }
        if self.op.fuses() { self.fused(chosen, &write, &add) } else { Ok(()) }
    }

    /// Adding must give the prefilled numbers plus the gradient.
    fn added(&self, chosen: &[usize], i: usize, grad: &[f64], sum: &[f64]) -> Result<(), Wrong> {
        let expected: Vec<f64> = self.into[i].to_f64().iter().zip(grad).map(|(base, grad)| base + grad).collect();
        match worst_beyond_rounding(sum, &expected, largest(grad)) {
            Some(worst) => Err(self.wrong(chosen, i, Check::Added, worst)),
            None => Ok(()),
        }
    }

    /// The fused pass has the outputs of the forward pass bit for bit, and the gradients of the VJP but for rounding: it may
    /// add them up in another way.
    fn fused(&mut self, chosen: &[usize], write: &[Want], add: &[Want]) -> Result<(), Wrong> {
        let one = Buffer::from_f64(DType::F64, self.outs[0].shape().dims(), &vec![1.0; self.outs[0].len()]);
        for wants in [write, add] {
            let plain = self.bench.vjp(wants, self.ins, &self.outs, &one, &self.into);
            let (outs, fused) = self.bench.forward_vjp(wants, self.ins, &self.into);
            for (got, expected) in outs.iter().zip(&self.outs) {
                if let Some(worst) = first_difference(&got.to_f64(), &expected.to_f64()) {
                    return Err(self.wrong(chosen, chosen[0], Check::Fused, worst));
                }
            }
            for &i in chosen {
                let (got, expected) = (fused[i].to_f64(), plain[i].to_f64());
                if let Some(worst) = worst_beyond_rounding(&got, &expected, largest(&expected)) {
                    return Err(self.wrong(chosen, i, Check::Fused, worst));
                }
            }
        }
        Ok(())
    }

    /// Forward over reverse: with g the gradient by the VJP, `u·(dg/dv) = v·(dg/du)` for random directions u and v of all
    /// inputs together. A field of gradients that is not symmetric so is the gradient of nothing.
    fn symmetry(&mut self) -> Result<(), Wrong> {
        let lens: Vec<usize> = self.wanted.iter().map(|&i| self.ins[i].len()).collect();
        let direction = |k: u32| {
            let mut direction = vec![0.0; lens.iter().sum()];
            Stream::new(self.options.seed, site::DIRECTION + k).fill_normal(&mut direction, |x| x);
            let norm = dot(&direction, &direction).sqrt().max(1e-300);
            direction.iter_mut().for_each(|x| *x /= norm);
            direction
        };
        let (u, v) = (direction(0), direction(1));
        let size: f64 = self.outs[0].as_slice::<f64>().iter().zip(&self.w).map(|(y, w)| (y * w).abs()).sum();
        // The derivative in direction `towards` of the gradient's projection onto `onto`.
        let mut second = |towards: &[f64], onto: &[f64]| {
            let mut moved = self.ins.to_vec();
            let wants: Vec<Want> =
                (0..self.ins.len()).map(|i| if self.wanted.contains(&i) { Want::Write } else { Want::Skip }).collect();
            let mut f = |t: f64| {
                let mut at = 0;
                for (&i, &len) in self.wanted.iter().zip(&lens) {
                    let x = self.ins[i].as_slice::<f64>();
                    let out = moved[i].as_mut_slice::<f64>();
                    out.iter_mut().zip(x).zip(&towards[at..]).for_each(|((o, x), d)| *o = x + t * d);
                    at += len;
                }
                let outs = self.bench.forward(&moved);
                let grads = self.bench.vjp(&wants, &moved, &outs, &self.d_out, &[]);
                let g = self.wanted.iter().flat_map(|&i| grads[i].as_slice::<f64>());
                // Terms of the result's size may have cancelled in a gradient.
                let (mut value, mut scale) = (0.0, size);
                for (g, o) in g.zip(onto) {
                    value += g * o;
                    scale += (g * o).abs();
                }
                Value { value, scale }
            };
            derivative(&mut f, self.options.step, self.options.tolerance)
        };
        let (there, back) = (second(&u, &v), second(&v, &u));
        let tolerance = self.options.tolerance;
        let reason = match (there.compare(there.value, tolerance), back.compare(back.value, tolerance)) {
            (Ok(Err(reason)), _) | (_, Ok(Err(reason))) if reason != Reason::TooSmall => Some(reason),
            _ => None,
        };
        // It says nothing of which of them is to blame.
        let all = self.wanted.iter().map(|&i| self.op.arguments()[i]).collect::<Vec<_>>().join(" and ");
        if let Some(reason) = reason {
            self.report.skip(&all, Place::Projection, reason);
            return Ok(());
        }
        let accepted = 10.0 * tolerance * there.value.abs().max(back.value.abs()) + there.worth() + back.worth();
        let close = (there.value - back.value).abs() <= accepted;
        if close {
            return Ok(());
        }
        let wrong = self.wrong(&self.wanted, 0, Check::Symmetry, (Place::Projection, there.value, back.value));
        Err(Wrong { input: all, ..wrong })
    }
}

/// The first number whose bits differ.
fn first_difference(got: &[f64], expected: &[f64]) -> Option<(Place, f64, f64)> {
    let j = got.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits())?;
    Some((Place::Entry(j), got[j], expected[j]))
}

/// The size of the largest number, at least 1. One that is not finite must not excuse the others.
pub(super) fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(1.0, f64::max)
}

/// The number that is furthest off, if by more than rounding of numbers of the size `scale` explains.
fn worst_beyond_rounding(got: &[f64], expected: &[f64], scale: f64) -> Option<(Place, f64, f64)> {
    let off = |j: usize| (got[j] - expected[j]).abs();
    // Written so that NaN fails, but for what is not finite itself.
    let close = |j: usize| off(j) <= 1e-11 * scale;
    let wrong = (0..got.len()).filter(|&j| expected[j].is_finite() && !close(j));
    wrong.max_by(|&a, &b| off(a).total_cmp(&off(b))).map(|j| (Place::Entry(j), got[j], expected[j]))
}
