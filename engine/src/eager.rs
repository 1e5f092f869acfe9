//! Calls ops and updates outside a graph, and compares their results, for checks and tests. Buffers are filled with NaN first. If a device lacks
//! the memory for an op, the call panics.

use crate::{Buffer, Context, DType, Device, Op, Pass, Result, Spec, Update, Want};
use std::borrow::{Borrow, Cow};
use std::cell::RefCell;
use std::slice;

static EMPTY: &Buffer = &Buffer::empty();

/// An op called outside a graph. Inputs may be in host memory; results stay on the device.
#[derive(Clone, Copy, Debug)]
pub struct Eager<'a> {
    /// Where the op runs.
    pub device: &'a Device,
    /// The op.
    pub op: &'a dyn Op,
}

impl Eager<'_> {
    /// All outputs.
    ///
    /// # Panics
    /// If the op refuses the inputs.
    pub fn forward(&self, ins: &[impl Borrow<Buffer>]) -> Vec<Buffer> {
        let mut outs = self.outs(ins);
        let placed = self.place(ins, u16::MAX);
        self.run(ins, Pass::Forward, |cx| self.op.forward(cx, &lent(&placed), &mut outs));
        outs
    }

    /// The gradients of the wanted inputs; `into` holds the values that `Add` adds to. Inputs and outputs that the op
    /// does not read are empty buffers.
    pub fn vjp(
        &self,
        wants: &[Want],
        ins: &[impl Borrow<Buffer>],
        outs: &[Buffer],
        d_out: &Buffer,
        into: &[Buffer],
    ) -> Vec<Buffer> {
        let reads = self.op.reads(wants);
        let mut d_ins = self.gradients(wants, ins, into);
        let (seen, outs) = (self.place(ins, reads.ins), self.place(outs, reads.outs));
        let d_out = self.place(slice::from_ref(d_out), 1);
        self.run(ins, Pass::Vjp(wants), |cx| {
            self.op.vjp(cx, wants, &lent(&seen), &lent(&outs), &d_out[0], &mut d_ins);
        });
        d_ins
    }

    /// Outputs and gradients of the fused pass.
    ///
    /// # Panics
    /// If the op has no fused pass.
    pub fn forward_vjp(
        &self,
        wants: &[Want],
        ins: &[impl Borrow<Buffer>],
        into: &[Buffer],
    ) -> (Vec<Buffer>, Vec<Buffer>) {
        let (mut outs, mut d_ins) = (self.outs(ins), self.gradients(wants, ins, into));
        let placed = self.place(ins, u16::MAX);
        self.run(ins, Pass::Fused(wants), |cx| {
            self.op.forward_vjp(cx, wants, &lent(&placed), &mut outs, &mut d_ins);
        });
        (outs, d_ins)
    }

    /// A device that has failed computes nothing.
    fn run(&self, ins: &[impl Borrow<Buffer>], pass: Pass, call: impl FnOnce(&mut Context)) {
        let mut scratch = garbage(self.device, scratch(self.op.scratch(self.device, &specs(ins), pass)));
        if self.device.finish().is_ok() {
            call(&mut Context { device: self.device, scratch: &mut scratch });
        }
    }

    fn outs(&self, ins: &[impl Borrow<Buffer>]) -> Vec<Buffer> {
        let outputs = self.op.infer(&specs(ins)).unwrap_or_else(|e| panic!("{}: {e}", self.op.name()));
        outputs.iter().map(|o| garbage(self.device, o.spec)).collect()
    }

    fn gradients(&self, wants: &[Want], ins: &[impl Borrow<Buffer>], into: &[Buffer]) -> Vec<Buffer> {
        let gradient = |(i, want): (usize, &Want)| match want {
            Want::Skip => Buffer::empty(),
            Want::Write => garbage(self.device, ins[i].borrow().spec()),
            Want::Add => self.place(&into[i..=i], 1).remove(0).into_owned(),
        };
        wants.iter().enumerate().map(gradient).collect()
    }

    /// The buffers whose bits are set, on the device, and empty buffers in place of the others.
    fn place<'b, B: Borrow<Buffer>>(&self, buffers: &'b [B], bits: u16) -> Vec<Cow<'b, Buffer>> {
        let place = |(i, buffer): (usize, &'b B)| match (self.device, buffer.borrow()) {
            _ if bits >> i & 1 == 0 => Cow::Borrowed(EMPTY),
            (Device::Cpu(_), buffer) => Cow::Borrowed(buffer),
            (device, buffer) => Cow::Owned(there(device, buffer.to_device(device), buffer.spec())),
        };
        buffers.iter().enumerate().map(place).collect()
    }
}

/// Applies an update to `state`, all on one device.
///
/// # Errors
/// If the device lacks the update's scratch memory, or has failed.
pub fn apply(device: &Device, update: &dyn Update, ins: &[&Buffer], state: &mut [Buffer]) -> Result<()> {
    let mut scratch = filled(device, scratch(update.scratch(device, &specs(ins), &specs(state))))?;
    update.apply(&mut Context { device, scratch: &mut scratch }, ins, state);
    Ok(())
}

fn lent<'b>(buffers: &'b [Cow<Buffer>]) -> Vec<&'b Buffer> {
    buffers.iter().map(|b| &**b).collect()
}

fn specs(buffers: &[impl Borrow<Buffer>]) -> Vec<Spec> {
    buffers.iter().map(|b| b.borrow().spec()).collect()
}

fn scratch(bytes: usize) -> Spec {
    Spec::new(DType::F32, &[bytes.div_ceil(4)])
}

/// A buffer filled with NaN, so that an op that reads it uninitialised gives NaN.
pub fn garbage(device: &Device, spec: Spec) -> Buffer {
    there(device, filled(device, spec), spec)
}

thread_local! {
    /// Host memory of the size of this thread's largest buffer, with all bits set; filled once per size.
    static SET: RefCell<Buffer> = const { RefCell::new(Buffer::empty()) };
}

/// All bits set: NaN in every float type, −1 as an integer.
fn filled(device: &Device, spec: Spec) -> Result<Buffer> {
    SET.with_borrow_mut(|set| {
        if set.capacity() < spec.bytes() {
            *set = Buffer::new(spec);
            set.bytes_mut().fill(0xFF);
        }
        set.respec(spec);
        set.to_device(device)
    })
}

/// The buffer, or a placeholder if the device has failed: such a device computes nothing more, and [`Device::finish`]
/// returns the reason.
fn there(device: &Device, buffer: Result<Buffer>, spec: Spec) -> Buffer {
    buffer.unwrap_or_else(|e| if device.finish().is_err() { Buffer::new(spec) } else { panic!("{e}") })
}

/// The same numbers, floats stored as `float`.
pub fn stored_as(float: DType, b: &Buffer) -> Buffer {
    let dtype = if b.dtype() == DType::I32 { DType::I32 } else { float };
    Buffer::from_f64(dtype, b.shape().dims(), &b.to_f64())
}

/// ‖a − b‖ / ‖b‖; ‖a‖ if b is zero. Equal infinities, as masks have, do not differ. Infinity if either has a NaN, or only
/// one of them an infinity, or if their lengths differ.
pub fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| if a == b { 0.0 } else { a - b }));
    let size = norm(&mut b.iter().copied().filter(|x| x.is_finite()));
    let error = if size > 0.0 { difference / size } else { difference };
    if a.len() != b.len() || error.is_nan() { f64::INFINITY } else { error }
}
