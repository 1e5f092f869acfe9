//! The checks at one point: an op, and its inputs in f64. Regression tests call them.

use crate::faults::Fault;
use crate::function::{Tensor, tensors};
use autograd::gradcheck::{Claim, Failure, Options, check_function, check_op};
use engine::case::Case;
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Eager, Op, Want};

/// A check's verdict.
pub type Checked = Result<(), String>;

/// Relative difference that [`forward`] accepts.
const TOLERANCE: f64 = 1e-12;
/// Keys the random weights of the result, the directions, and changes by rounding.
const SITES: [u32; 4] = [6000, 6100, 6200, 6300];

fn eager(op: &dyn Op) -> Eager<'_> {
    Eager { device: &Device::CPU, op }
}

fn first_out(op: &dyn Op, ins: &[Buffer]) -> Buffer {
    eager(op).forward(ins).swap_remove(0)
}

fn normal(seed: u64, site: u32, len: usize) -> Vec<f64> {
    let stream = Stream::new(seed, site);
    (0..len as u32).map(|i| stream.normal(i)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The inputs that have a gradient.
fn differentiable(op: &dyn Op) -> impl Iterator<Item = usize> {
    (0..op.arguments().len()).filter(|&i| op.differentiable(i))
}

/// The gradients of all inputs that have one, as one vector, for the result's gradient `w`.
fn gradient(op: &dyn Op, ins: &[Buffer], w: &[f64]) -> Vec<f64> {
    let wants: Vec<Want> =
        (0..ins.len()).map(|i| if op.differentiable(i) { Want::Write } else { Want::Skip }).collect();
    if !wants.contains(&Want::Write) {
        return Vec::new();
    }
    let outs = eager(op).forward(ins);
    let d_out = Buffer::from_f64(DType::F64, outs[0].shape().dims(), w);
    let d_ins = eager(op).vjp(&wants, ins, &outs, &d_out, &[]);
    differentiable(op).flat_map(|i| d_ins[i].to_f64()).collect()
}

/// The inputs, those with a gradient moved by `step` times a direction.
fn moved(op: &dyn Op, ins: &[Buffer], direction: &[f64], step: f64) -> Vec<Buffer> {
    let mut moved = ins.to_vec();
    let mut rest = direction;
    for i in differentiable(op) {
        let (own, others) = rest.split_at(ins[i].len());
        rest = others;
        moved[i].as_mut_slice::<f64>().iter_mut().zip(own).for_each(|(x, d)| *x += step * d);
    }
    moved
}

fn len(op: &dyn Op, ins: &[Buffer]) -> usize {
    differentiable(op).map(|i| ins[i].len()).sum()
}

/// A random vector of length 1.
fn direction(seed: u64, site: u32, len: usize) -> Vec<f64> {
    let mut direction = normal(seed, site, len);
    let norm = dot(&direction, &direction).sqrt().max(f64::MIN_POSITIVE);
    direction.iter_mut().for_each(|x| *x /= norm);
    direction
}

/// Compares the result with that of `reference`. Where the reference is finite, the result must be within 10⁻¹² of it,
/// and ten times the change of the reference when the inputs change by rounding; differences
/// below the smallest normal number do not count. Elsewhere both must be the same
/// infinity or NaN.
///
/// # Errors
/// The first number that differs.
pub fn forward(op: &dyn Op, ins: &[Buffer], reference: impl Fn(&[Tensor]) -> Vec<f64>) -> Checked {
    let got = first_out(op, ins).to_f64();
    let ins = tensors(ins);
    let expected = reference(&ins);
    if got.len() != expected.len() {
        return Err(format!("{}: {} numbers, the reference gives {}", op.name(), got.len(), expected.len()));
    }
    let mut spread = vec![0.0f64; expected.len()];
    for seed in 0..3 {
        let mut near = ins.clone();
        for (i, (x, site)) in near.iter_mut().zip(SITES[3]..).enumerate().filter(|(i, _)| op.differentiable(*i)) {
            let changes = normal(seed, site, ins[i].data.len());
            x.data.iter_mut().zip(changes).for_each(|(x, change)| *x += *x * 1e-15 * change);
        }
        let near = reference(&near);
        spread.iter_mut().zip(near.iter().zip(&expected)).for_each(|(s, (a, b))| *s = s.max((a - b).abs()));
    }
    for (i, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
        let same = got == expected || got.is_nan() && expected.is_nan();
        let allowed = TOLERANCE * expected.abs() + 10.0 * spread[i] + f64::MIN_POSITIVE;
        let close = expected.is_finite() && (got - expected).abs() <= allowed;
        if !(same || close) {
            return Err(format!(
                "{}: number {i} of the result is {got:e}, the reference gives {expected:e}",
                op.name()
            ));
        }
    }
    Ok(())
}

/// Compares a claimed Jacobian-vector product, given the inputs and a direction for each, with differences of the
/// result. ([`check_op`] compares the same differences with the transpose of the VJP, so it needs no
/// such product.)
///
/// # Errors
/// The product along a random direction, if it is wrong.
pub fn jvp(op: &dyn Op, ins: &[Buffer], seed: u64, claimed: impl Fn(&[Tensor], &[Tensor]) -> Vec<f64>) -> Checked {
    let along = direction(seed, SITES[1], len(op, ins));
    let zeros: Vec<Buffer> = ins.iter().map(|x| Buffer::new(x.spec())).collect();
    let product = claimed(&tensors(ins), &tensors(&moved(op, &zeros, &along, 1.0)));
    let w = normal(seed, SITES[0], product.len());
    let value = |t| dot(&w, &first_out(op, &moved(op, ins, &along, t)).to_f64());
    slope(dot(&w, &product), value).map_err(|(claimed, expected)| {
        let name = op.name();
        format!("{name}: the Jacobian-vector product is {claimed:e}, should be {expected:e} by differences (projected)")
    })
}

/// Second order: the derivative H of the gradient by differences must be symmetric, u·H·v = v·H·u for random
/// directions. A gradient that fails is not the gradient of any function. Kinks and rough places are left out, as in
/// [`check_op`].
///
/// # Errors
/// If the products differ.
pub fn second_order(op: &dyn Op, ins: &[Buffer], seed: u64) -> Checked {
    let n = len(op, ins);
    let [u, v] = [SITES[1], SITES[2]].map(|site| direction(seed, site, n));
    let w = normal(seed, SITES[0], first_out(op, ins).len());
    let along = |of: &[f64], along: &[f64], t: f64| dot(of, &gradient(op, &moved(op, ins, along, t), &w));
    let check = |a: &[f64], b: &[f64]| {
        let product = |h: f64| {
            let difference = |h: f64| along(b, a, h) - along(b, a, -h);
            (8.0 * difference(h) - difference(2.0 * h)) / (12.0 * h)
        };
        // Which step is best depends on the op.
        let [small, middle, large] = [1e-4, 1e-3, 1.6e-2].map(|h| slope(product(h), |t| along(a, b, t)));
        small.or(middle).or(large)
    };
    // Both ways: a product counts as wrong only by differences that can be trusted.
    match (check(&u, &v), check(&v, &u)) {
        (Err((one, other)), Err(_)) => {
            let name = op.name();
            Err(format!("{name}: u·H·v is {one:e} and v·H·u is {other:e}: no function has this gradient"))
        }
        _ => Ok(()),
    }
}

/// Compares a claimed derivative at 0 with differences that estimate their own errors.
///
/// # Errors
/// The claim and the derivative.
fn slope(claimed: f64, value: impl Fn(f64) -> f64) -> Result<(), (f64, f64)> {
    let claim = Claim { name: "t", at: &[0.0], gradient: &[claimed] };
    match check_function("slope", &[claim], |t| value(t[0][0]), &Options::default()) {
        Err(Failure::Wrong(wrong)) => Err((wrong.claimed, wrong.expected)),
        _ => Ok(()),
    }
}

/// The check must find this fault in the gradient of input number `input`.
///
/// # Errors
/// If it does not.
pub fn planted(op: impl Op + 'static, ins: &[Buffer], seed: u64, fault: Fault, input: usize) -> Checked {
    let name = op.arguments()[input];
    let wrong = fault.clone().plant(input, Case::new("", op, Vec::new()));
    match check_op(&*wrong.op, ins, &Options { seed, ..Options::default() }) {
        Err(Failure::Wrong(_)) => Ok(()),
        _ => Err(not_found(&fault, name)),
    }
}

pub(crate) fn not_found(fault: &Fault, input: &str) -> String {
    format!("the planted fault {fault:?} in the gradient of {input} was not found")
}

/// Two calls must give the same bits: all outputs, and all gradients.
///
/// # Errors
/// The output or gradient that differs.
pub fn deterministic(op: &dyn Op, ins: &[Buffer]) -> Checked {
    let call = || {
        let outs = eager(op).forward(ins);
        let gradient = gradient(op, ins, &vec![1.0; outs[0].len()]);
        (outs.iter().map(|out| out.as_bytes().to_vec()).collect::<Vec<_>>(), bits(&gradient))
    };
    let (first, second) = (call(), call());
    if let Some(i) = (0..first.0.len()).find(|&i| first.0[i] != second.0[i]) {
        return Err(format!("{}: output {i} has other bits when it is computed again", op.name()));
    }
    if first.1 == second.1 {
        Ok(())
    } else {
        Err(format!("{}: a gradient has other bits when it is computed again", op.name()))
    }
}

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// The bits of a sample's result and gradients must not depend on the rest of the batch. The first axis of the result
/// and of the inputs `batched` counts samples; the gradients of the other inputs are sums over samples and not
/// compared.
///
/// # Errors
/// The first sample whose bits differ from those of a batch of one.
pub fn independent_of_batch(op: &dyn Op, ins: &[Buffer], batched: &[usize]) -> Checked {
    let samples = ins[batched[0]].shape().dims()[0];
    let part = |x: &Buffer, sample: usize| {
        let each = x.len() / samples;
        let mut dims = x.shape().dims().to_vec();
        dims[0] /= samples;
        Buffer::from_f64(x.dtype(), &dims, &x.to_f64()[sample * each..][..each])
    };
    let wants: Vec<Want> = (0..ins.len())
        .map(|i| if batched.contains(&i) && op.differentiable(i) { Want::Write } else { Want::Skip })
        .collect();
    let run = |ins: &[Buffer], w: &[f64]| {
        let outs = eager(op).forward(ins);
        let d_out = Buffer::from_f64(DType::F64, outs[0].shape().dims(), w);
        let mut all = vec![outs[0].clone()];
        if wants.contains(&Want::Write) {
            let d_ins = eager(op).vjp(&wants, ins, &outs, &d_out, &[]);
            all.extend(d_ins.into_iter().zip(&wants).filter(|(_, want)| want.is_wanted()).map(|(d, _)| d));
        }
        all
    };
    let w = normal(0, SITES[0], first_out(op, ins).len());
    let together = run(ins, &w);
    let each = w.len() / samples;
    for sample in 0..samples {
        let own: Vec<Buffer> = ins
            .iter()
            .enumerate()
            .map(|(i, x)| if batched.contains(&i) { part(x, sample) } else { x.clone() })
            .collect();
        let alone = run(&own, &w[sample * each..][..each]);
        let same =
            |(together, alone): (&Buffer, &Buffer)| bits(&part(together, sample).to_f64()) == bits(&alone.to_f64());
        if !together.iter().zip(&alone).all(same) {
            return Err(format!("{}: sample {sample} has other bits in a batch of one", op.name()));
        }
    }
    Ok(())
}

/// A NaN in any number of an input must make NaN every number of the result that depends on it, i.e. changes when that
/// number grows by 1. So a maximum may ignore NaN only where it ignores the number.
///
/// # Errors
/// The first number of the result that hides a NaN.
pub fn nan_stays(op: &dyn Op, ins: &[Buffer]) -> Checked {
    let before = first_out(op, ins).to_f64();
    for i in (0..ins.len()).filter(|&i| ins[i].dtype() == DType::F64) {
        let mut changed = ins.to_vec();
        for j in 0..ins[i].len() {
            let mut with = |x: f64| {
                changed[i].as_mut_slice::<f64>()[j] = x;
                first_out(op, &changed).to_f64()
            };
            let x = ins[i].as_slice::<f64>()[j];
            let (grown, nan) = (with(x + 1.0), with(f64::NAN));
            with(x);
            if let Some(k) = (0..before.len()).find(|&k| grown[k] != before[k] && !nan[k].is_nan()) {
                let (op, name) = (op.name(), op.arguments()[i]);
                return Err(format!("{op}: number {k} of the result is {}, though {name}[{j}] is NaN", nan[k]));
            }
        }
    }
    Ok(())
}
