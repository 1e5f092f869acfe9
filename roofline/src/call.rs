//! A pass of an op with its buffers, ready to run again and again, and the check of what it computes.

use engine::eager::{relative_error, stored_as};
use engine::op::{MOST, infer};
use engine::rng::Stream;
use engine::{Buffer, Context, DType, Device, Eager, Error, Op, Pass, Result, Spec, Want};

static EMPTY: Buffer = Buffer::empty();

/// A pass of an op with its buffers on a device.
#[derive(Debug)]
pub struct Call<'a> {
    op: &'a dyn Op,
    wants: Vec<Want>,
    is_fused: bool,
    device: Device,
    ins: Vec<Buffer>,
    outs: Vec<Buffer>,
    d_out: Buffer,
    d_ins: Vec<Buffer>,
    scratch: Buffer,
}

impl<'a> Call<'a> {
    /// Copies the inputs to the device, and runs forward once to compute what the VJP reads.
    ///
    /// # Errors
    /// If the op refuses the inputs, or the device lacks the memory.
    pub fn new(op: &'a dyn Op, pass: Pass, ins: &[Buffer], device: &Device) -> Result<Self> {
        let specs: Vec<Spec> = ins.iter().map(Buffer::spec).collect();
        let new = |spec: Spec| Buffer::new_on(device, spec);
        let ins = ins.iter().map(|b| b.to_device(device)).collect::<Result<_>>()?;
        let outs = infer(op, &specs)?.iter().map(|out| new(out.spec)).collect::<Result<Vec<_>>>()?;
        let d_out = gradient(outs[0].spec()).to_device(device)?;
        let d_in = |(i, &spec)| if pass.gives(i) { new(spec) } else { Ok(Buffer::empty()) };
        let d_ins = specs.iter().enumerate().map(d_in).collect::<Result<_>>()?;
        let bytes = [Pass::Forward, pass].map(|pass| op.scratch(device, &specs, pass));
        let scratch = Buffer::with_capacity_on(device, bytes[0].max(bytes[1]))?;
        let (wants, is_fused) = (pass.wants().to_vec(), matches!(pass, Pass::Fused(_)));
        let mut call = Self { op, wants, is_fused, device: device.clone(), ins, outs, d_out, d_ins, scratch };
        call.forward();
        Ok(call)
    }

    /// Runs the pass.
    pub fn run(&mut self) {
        if self.wants.is_empty() {
            return self.forward();
        }
        let Self { op, wants, is_fused, device, ins, outs, d_out, d_ins, scratch } = self;
        let mut cx = Context { device, scratch };
        let count = ins.len();
        if *is_fused {
            return op.forward_vjp(&mut cx, wants, &lend(ins, u16::MAX)[..count], outs, d_ins);
        }
        let reads = op.reads(wants);
        let (lent_ins, lent_outs) = (lend(ins, reads.ins), lend(outs, reads.outs));
        op.vjp(&mut cx, wants, &lent_ins[..count], &lent_outs[..outs.len()], d_out, d_ins);
    }

    fn forward(&mut self) {
        let Self { op, device, ins, outs, scratch, .. } = self;
        op.forward(&mut Context { device, scratch }, &lend(ins, u16::MAX)[..ins.len()], outs);
    }

    /// The gradients of the latest pass, of which those that are not wanted are empty.
    pub fn gradients(&self) -> &[Buffer] {
        &self.d_ins
    }
}

/// The buffers that are read, and empty buffers in place of the others; without an allocation.
fn lend(buffers: &[Buffer], read: u16) -> [&Buffer; MOST] {
    std::array::from_fn(|i| match buffers.get(i) {
        Some(buffer) if read & 1 << i != 0 => buffer,
        _ => &EMPTY,
    })
}

/// The gradient of a result: standard normal numbers of f32 precision.
fn gradient(spec: Spec) -> Buffer {
    let mut numbers = vec![0.0; spec.shape.numel()];
    Stream::new(2, 0).fill_normal(0, &mut numbers, |x| f64::from(x as f32));
    Buffer::from_f64(spec.dtype, spec.shape.dims(), &numbers)
}

/// Compares a pass of an op on `device` with the same op on the CPU in f64: the results, and the gradients of this pass.
/// Returns whether there was anything to compare with, which an op without f64 has not.
///
/// # Errors
/// If the norm of a difference exceeds 10⁻⁴ of the norm of the number in f64, or 10⁻² where 16 bits are stored or multiplied;
/// if the op refuses the inputs, or the device fails.
pub fn check(op: &dyn Op, pass: Pass, ins: &[Buffer], device: &Device) -> Result<bool> {
    let specs: Vec<Spec> = ins.iter().map(Buffer::spec).collect();
    let result = infer(op, &specs)?[0].spec;
    let exact = |b: &Buffer| stored_as(DType::F64, b);
    let doubles: Vec<Buffer> = ins.iter().map(exact).collect();
    if infer(op, &doubles.iter().map(Buffer::spec).collect::<Vec<_>>()).is_err() {
        return Ok(false);
    }
    let halves = specs.iter().any(|spec| spec.dtype == DType::Bf16) || device.rounds_products();
    let tolerance = if halves { 1e-2 } else { 1e-4 };
    let d_out = gradient(result);
    let ours = outputs(op, pass, ins, &d_out, device);
    let expected = outputs(op, pass, &doubles, &exact(&d_out), &Device::CPU);
    device.finish()?;
    for (name, (ours, expected)) in names(op, pass, ours.len()).iter().zip(ours.iter().zip(&expected)) {
        if expected.is_empty() {
            continue;
        }
        near(op, name, &ours.read_f64()?, (&expected.to_f64(), "the same op in f64"), tolerance)?;
    }
    Ok(true)
}

/// Compares numbers with those expected from `source`.
fn near(op: &dyn Op, name: &str, ours: &[f64], (expected, source): (&[f64], &str), tolerance: f64) -> Result<()> {
    let error = relative_error(ours, expected);
    if error <= tolerance {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}: {name} differs from {source} by {error:.1e} of its norm, more than {tolerance:.0e}, so it was not timed",
        op.name()
    )))
}

/// Compares the op's result for inputs in f32 with the numbers of `reference`.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_against(op: &dyn Op, ins: &[Buffer], reference: &[f64]) -> Result<()> {
    infer(op, &ins.iter().map(Buffer::spec).collect::<Vec<_>>())?;
    let result = Eager { device: &Device::CPU, op }.forward(ins).swap_remove(0).to_f64();
    if result.len() != reference.len() {
        let (name, lengths) = (op.name(), (result.len(), reference.len()));
        return Err(Error::new(format!("{name}: the result has {} numbers, its reference {}", lengths.0, lengths.1)));
    }
    near(op, "the result", &result, (reference, "its reference"), 1e-4)
}

/// All outputs, then the gradients of the pass.
fn outputs(op: &dyn Op, pass: Pass, ins: &[Buffer], d_out: &Buffer, device: &Device) -> Vec<Buffer> {
    let eager = Eager { device, op };
    let half = |b: &Buffer| Buffer::from_f64(b.dtype(), b.shape().dims(), &vec![0.5; b.len()]);
    // Only gradients that are added to are read.
    let into: Vec<Buffer> = (0..ins.len())
        .map(|i| if pass.wants().get(i) == Some(&Want::Add) { half(&ins[i]) } else { Buffer::empty() })
        .collect();
    match pass {
        Pass::Fused(wants) => {
            let (mut outs, d_ins) = eager.forward_vjp(wants, ins, &into);
            outs.extend(d_ins);
            outs
        }
        Pass::Vjp(wants) => {
            let mut outs = eager.forward(ins);
            let d_ins = eager.vjp(wants, ins, &outs, d_out, &into);
            outs.extend(d_ins);
            outs
        }
        Pass::Forward => eager.forward(ins),
    }
}

/// What [`outputs`] returns, in words.
fn names(op: &dyn Op, pass: Pass, count: usize) -> Vec<String> {
    let gradients = op.arguments().iter().map(|name| format!("the gradient of {name}"));
    let gradients: Vec<String> = gradients.take(pass.wants().len()).collect();
    let outputs =
        (0..count - gradients.len()).map(|i| if i == 0 { "the result".into() } else { format!("output {i}") });
    outputs.chain(gradients).collect()
}
