//! An op called outside a graph.

use engine::{Buffer, Context, DType, Device, Op, Pass, Spec, Want};
use std::borrow::Cow;

static EMPTY: &Buffer = &Buffer::empty();

/// An op with its inputs, ready to be called outside a graph.
pub struct Bench<'a> {
    op: &'a dyn Op,
    device: Device,
    scratch: Buffer,
    specs: Vec<Spec>,
}

impl<'a> Bench<'a> {
    /// Prepares `op` for these inputs on the CPU.
    ///
    /// # Panics
    /// If the op refuses them.
    pub fn new(op: &'a dyn Op, ins: &[Buffer]) -> Self {
        Self::on(&Device::Cpu, op, ins)
    }

    /// Prepares `op` for these inputs on `device`, where the results stay. Inputs may be in host memory.
    ///
    /// # Panics
    /// If the op refuses the inputs or the device has no room.
    pub fn on(device: &Device, op: &'a dyn Op, ins: &[Buffer]) -> Self {
        let specs: Vec<Spec> = ins.iter().map(Buffer::spec).collect();
        let wants: Vec<Want> =
            (0..ins.len()).map(|i| if op.differentiable(i) { Want::Write } else { Want::Skip }).collect();
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
        let outputs = self.op.infer(&self.specs).unwrap_or_else(|e| panic!("{}: {e}", self.op.name()));
        let mut outs: Vec<Buffer> = outputs.iter().map(|o| garbage(&self.device, o.spec)).collect();
        let ins = self.placed(ins);
        let ins: Vec<&Buffer> = ins.iter().map(|b| &**b).collect();
        self.op.forward(&mut Context { device: &self.device, scratch: &mut self.scratch }, &ins, &mut outs);
        outs
    }

    /// The gradients of the wanted inputs; `into` gives what `Add` adds to.
    pub fn vjp(
        &mut self,
        wants: &[Want],
        ins: &[Buffer],
        outs: &[Buffer],
        d_out: &Buffer,
        into: &[Buffer],
    ) -> Vec<Buffer> {
        let reads = self.op.reads(wants);
        // What the op says it does not read, it does not get.
        fn read<'b>(buffers: &'b [Cow<Buffer>], bits: u16) -> Vec<&'b Buffer> {
            buffers.iter().enumerate().map(|(i, b)| if bits >> i & 1 == 1 { &**b } else { EMPTY }).collect()
        }
        let (ins, outs) = (self.placed(ins), self.placed(outs));
        let (ins, outs) = (read(&ins, reads.ins), read(&outs, reads.outs));
        let d_out = self.place(d_out);
        let mut d_ins = self.gradients(wants, into);
        let mut cx = Context { device: &self.device, scratch: &mut self.scratch };
        self.op.vjp(&mut cx, wants, &ins, &outs, &d_out, &mut d_ins);
        d_ins
    }

    /// Outputs and gradients of the fused pass.
    ///
    /// # Panics
    /// If the op has none.
    pub fn forward_vjp(&mut self, wants: &[Want], ins: &[Buffer], into: &[Buffer]) -> (Vec<Buffer>, Vec<Buffer>) {
        let outputs = self.op.infer(&self.specs).unwrap_or_else(|e| panic!("{}: {e}", self.op.name()));
        let mut outs: Vec<Buffer> = outputs.iter().map(|o| garbage(&self.device, o.spec)).collect();
        let mut d_ins = self.gradients(wants, into);
        let ins = self.placed(ins);
        let ins: Vec<&Buffer> = ins.iter().map(|b| &**b).collect();
        let mut cx = Context { device: &self.device, scratch: &mut self.scratch };
        self.op.forward_vjp(&mut cx, wants, &ins, &mut outs, &mut d_ins);
        (outs, d_ins)
    }

    fn gradients(&self, wants: &[Want], into: &[Buffer]) -> Vec<Buffer> {
        wants
            .iter()
            .enumerate()
            .map(|(i, want)| match want {
                Want::Skip => Buffer::empty(),
                Want::Write => garbage(&self.device, self.specs[i]),
                Want::Add => self.place(&into[i]).into_owned(),
            })
            .collect()
    }

    fn placed<'b>(&self, buffers: &'b [Buffer]) -> Vec<Cow<'b, Buffer>> {
        buffers.iter().map(|b| self.place(b)).collect()
    }

    fn place<'b>(&self, buffer: &'b Buffer) -> Cow<'b, Buffer> {
        match self.device {
            Device::Cpu => Cow::Borrowed(buffer),
            Device::Cuda(_) => Cow::Owned(buffer.to_device(&self.device).unwrap_or_else(|e| panic!("{e}"))),
        }
    }
}

/// A buffer whose numbers nobody may rely on: NaN, so that whoever does is seen.
fn garbage(device: &Device, spec: Spec) -> Buffer {
    let mut buffer = Buffer::new_on(device, spec).unwrap_or_else(|e| panic!("{e}"));
    buffer.set_f64(&vec![if spec.dtype == DType::I32 { -9.0 } else { f64::NAN }; spec.shape.numel()]);
    buffer
}
