//! An op called outside a graph.

use engine::{Buffer, Context, DType, Device, Op, Pass, Result, Spec, Want};
use std::borrow::Cow;

static EMPTY: &Buffer = &Buffer::empty();

/// An op that is ready to be called outside a graph. Inputs may be in host memory; results stay on the op's device.
pub struct Bench<'a> {
    op: &'a dyn Op,
    device: Device,
    scratch: Buffer,
    specs: Vec<Spec>,
}

impl<'a> Bench<'a> {
    /// Prepares `op` on `device` for inputs of these types and shapes.
    ///
    /// # Panics
    /// If the device has no room.
    pub fn new(device: &Device, op: &'a dyn Op, ins: &[Buffer]) -> Self {
        let specs: Vec<Spec> = ins.iter().map(Buffer::spec).collect();
        let want = |i| if op.differentiable(i) { Want::Write } else { Want::Skip };
        let wants: Vec<Want> = (0..ins.len()).map(want).collect();
        let passes = [Pass::Forward, Pass::Vjp(&wants), Pass::Fused(&wants)];
        let passes = if op.fuses() { &passes[..] } else { &passes[..2] };
        let scratch = passes.iter().map(|&p| op.scratch(device, &specs, p)).max().unwrap_or(0);
        let scratch = garbage(device, Spec::new(DType::F32, &[scratch.div_ceil(4)]));
        Self { op, device: device.clone(), scratch, specs }
    }

    /// All outputs, in buffers that held garbage before.
    ///
    /// # Panics
    /// If the op refuses the inputs.
    pub fn forward(&mut self, ins: &[Buffer]) -> Vec<Buffer> {
        let mut outs = self.outs();
        let ins = self.placed(ins);
        if self.device.finish().is_ok() {
            let mut cx = Context { device: &self.device, scratch: &mut self.scratch };
            self.op.forward(&mut cx, &all(&ins), &mut outs);
        }
        outs
    }

    /// The gradients of the wanted inputs; `into` gives what `Add` adds to. The op gets no input and no output that it says
    /// it does not read.
    pub fn vjp(
        &mut self,
        wants: &[Want],
        ins: &[Buffer],
        outs: &[Buffer],
        d_out: &Buffer,
        into: &[Buffer],
    ) -> Vec<Buffer> {
        let reads = self.op.reads(wants);
        let (ins, outs, d_out) = (self.placed(ins), self.placed(outs), self.place(d_out));
        let mut d_ins = self.gradients(wants, into);
        if self.device.finish().is_ok() {
            let mut cx = Context { device: &self.device, scratch: &mut self.scratch };
            self.op.vjp(&mut cx, wants, &some(&ins, reads.ins), &some(&outs, reads.outs), &d_out, &mut d_ins);
        }
        d_ins
    }

    /// Outputs and gradients of the fused pass.
    ///
    /// # Panics
    /// If the op has none.
    pub fn forward_vjp(&mut self, wants: &[Want], ins: &[Buffer], into: &[Buffer]) -> (Vec<Buffer>, Vec<Buffer>) {
        let mut outs = self.outs();
        let mut d_ins = self.gradients(wants, into);
        let ins = self.placed(ins);
        if self.device.finish().is_ok() {
            let mut cx = Context { device: &self.device, scratch: &mut self.scratch };
            self.op.forward_vjp(&mut cx, wants, &all(&ins), &mut outs, &mut d_ins);
        }
        (outs, d_ins)
    }

    fn outs(&self) -> Vec<Buffer> {
        let outputs = self.op.infer(&self.specs).unwrap_or_else(|e| panic!("{}: {e}", self.op.name()));
        outputs.iter().map(|o| garbage(&self.device, o.spec)).collect()
    }

    fn gradients(&self, wants: &[Want], into: &[Buffer]) -> Vec<Buffer> {
        let gradient = |(i, want): (usize, &Want)| match want {
            Want::Skip => Buffer::empty(),
            Want::Write => garbage(&self.device, self.specs[i]),
            Want::Add => self.place(&into[i]).into_owned(),
        };
        wants.iter().enumerate().map(gradient).collect()
    }

    fn placed<'b>(&self, buffers: &'b [Buffer]) -> Vec<Cow<'b, Buffer>> {
        buffers.iter().map(|b| self.place(b)).collect()
    }

    fn place<'b>(&self, buffer: &'b Buffer) -> Cow<'b, Buffer> {
        match self.device {
            Device::Cpu => Cow::Borrowed(buffer),
            Device::Cuda(_) => Cow::Owned(there(&self.device, buffer.to_device(&self.device), buffer.spec())),
        }
    }
}

fn all<'b>(buffers: &'b [Cow<Buffer>]) -> Vec<&'b Buffer> {
    some(buffers, u16::MAX)
}

/// The buffers whose bits are set, and empty ones for the others.
fn some<'b>(buffers: &'b [Cow<Buffer>], bits: u16) -> Vec<&'b Buffer> {
    buffers.iter().enumerate().map(|(i, b)| if bits >> i & 1 == 1 { &**b } else { EMPTY }).collect()
}

/// A buffer whose numbers nobody may rely on: NaN, so that the results of an op that does are NaN too.
fn garbage(device: &Device, spec: Spec) -> Buffer {
    let mut buffer = there(device, Buffer::new_on(device, spec), spec);
    buffer.set_f64(&vec![if spec.dtype == DType::I32 { -9.0 } else { f64::NAN }; spec.shape.numel()]);
    buffer
}

/// The buffer, or memory that stands for it on a device that has failed: such a device computes nothing more, and
/// [`Device::finish`] says why.
fn there(device: &Device, buffer: Result<Buffer>, spec: Spec) -> Buffer {
    buffer.unwrap_or_else(|e| if device.finish().is_err() { Buffer::new(spec) } else { panic!("{e}") })
}
