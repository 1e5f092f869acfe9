//! Gradients against central differences, in f64.
//!
//! With a random cotangent `w`, `f(x) = Σ w ⊙ op(x)` is a number whose gradient the VJP claims to know. The numeric side
//! uses the fourth-order five-point stencil: entry by entry for small inputs, and along one random direction at any size.
//! Two step sizes tell how far it can be trusted: where they disagree, near a kink, nothing is certified.

use engine::rng::Stream;
use engine::{Buffer, Context, DType, Device, Op, Pass, Spec, Want};
use std::borrow::Cow;
use std::fmt;

/// How strict to be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Seeds the cotangent and the direction.
    pub seed: u64,
    /// Step of the stencil for entries of size one.
    pub step: f64,
    /// Largest accepted relative difference.
    pub tolerance: f64,
    /// Inputs up to this many elements are checked entry by entry.
    pub entrywise: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, step: 1e-3, tolerance: 1e-6, entrywise: 48 }
    }
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Comparisons made.
    pub checked: usize,
    /// Comparisons that could not certify anything: both sides below the noise of the numeric derivative, or two step
    /// sizes that disagree.
    pub unchecked: usize,
    /// The worst relative difference among those checked.
    pub worst: f64,
}

/// A gradient that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Name of the op.
    pub op: &'static str,
    /// What was compared, with the input's name and the entry.
    pub what: String,
    /// The VJP's number.
    pub claimed: f64,
    /// The number it should be.
    pub expected: f64,
    /// The seed that reproduces it.
    pub seed: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, what, claimed, expected, seed } = self;
        write!(f, "{op}: {what} is {claimed:e}, should be {expected:e} (seed {seed})")
    }
}

impl std::error::Error for Failure {}

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

    /// Prepares `op` for these inputs on `device`. What goes in and what comes out is in host memory all the same.
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
        fetched(outs)
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
        fetched(d_ins)
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
        (fetched(outs), fetched(d_ins))
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

/// The buffers in host memory.
fn fetched(buffers: Vec<Buffer>) -> Vec<Buffer> {
    buffers.into_iter().map(|b| if b.address() == 0 { b } else { b.on_host().into_owned() }).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Checks every differentiable input of `op` for every subset of wanted inputs, with `Write` and with `Add`, and the
/// fused pass and passed-through gradients where the op claims them.
///
/// # Errors
/// The first gradient found wrong.
pub fn check_op(op: &dyn Op, ins: &[Buffer], options: &Options) -> Result<Report, Failure> {
    let mut bench = Bench::new(op, ins);
    let outs = bench.forward(ins);
    let n_out = outs[0].len();
    let mut w = vec![0.0; n_out];
    Stream::new(options.seed, 1000).fill_normal(&mut w, |x| x);
    let d_out = Buffer::from_f64(DType::F64, outs[0].shape().dims(), &w);
    let wanted: Vec<usize> = (0..ins.len()).filter(|&i| op.differentiable(i)).collect();
    let fail = |what: String, claimed: f64, expected: f64| Failure {
        op: op.name(),
        what,
        claimed,
        expected,
        seed: options.seed,
    };
    let mut report = Report::default();
    let numeric: Vec<Numeric> = wanted.iter().map(|&i| Numeric::of(&mut bench, ins, i, &w, options)).collect();

    for subset in 1u32..1 << wanted.len() {
        let chosen = |i: usize| wanted.iter().position(|&j| j == i).is_some_and(|p| subset >> p & 1 == 1);
        let wants =
            |want: Want| -> Vec<Want> { (0..ins.len()).map(|i| if chosen(i) { want } else { Want::Skip }).collect() };
        let grads = bench.vjp(&wants(Want::Write), ins, &outs, &d_out, &[]);
        for (numeric, &i) in numeric.iter().zip(&wanted).filter(|(_, i)| chosen(**i)) {
            let name = op.arguments()[i];
            let grad = grads[i].to_f64();
            if op.passes_through(i) && grad != w {
                return Err(fail(format!("the passed-through gradient of {name}"), grad[0], w[0]));
            }
            numeric.compare(&grad, options, &mut report).map_err(|(what, claimed, expected)| {
                fail(format!("subset {:?}: d_{name}{what}", wants(Want::Write)), claimed, expected)
            })?;
        }
        // Adding must give the prefilled numbers plus the gradient.
        let into: Vec<Buffer> =
            ins.iter().zip(0..).map(|(b, i)| normal_like(b.spec(), options.seed, 2000 + i)).collect();
        let added = bench.vjp(&wants(Want::Add), ins, &outs, &d_out, &into);
        // Some written, some added: what one input wants must not change another's gradient.
        let mixed: Vec<Want> = wants(Want::Add)
            .into_iter()
            .enumerate()
            .map(|(i, want)| if want == Want::Add && i % 2 == 0 { Want::Write } else { want })
            .collect();
        let both = bench.vjp(&mixed, ins, &outs, &d_out, &into);
        let fused = op.fuses().then(|| {
            let one = Buffer::from_f64(DType::F64, outs[0].shape().dims(), &vec![1.0; n_out]);
            let plain = [Want::Write, Want::Add].map(|want| bench.vjp(&wants(want), ins, &outs, &one, &into));
            let (fused_outs, write) = bench.forward_vjp(&wants(Want::Write), ins, &[]);
            let add = bench.forward_vjp(&wants(Want::Add), ins, &into).1;
            (fused_outs, [write, add], plain)
        });
        for &i in wanted.iter().filter(|&&i| chosen(i)) {
            let name = op.arguments()[i];
            let (sum, base, grad) = (added[i].to_f64(), into[i].to_f64(), grads[i].to_f64());
            let scale = grad.iter().fold(1.0f64, |m, x| m.max(x.abs()));
            for j in 0..sum.len() {
                let expected = base[j] + grad[j];
                let close = (sum[j] - expected).abs() <= 1e-11 * scale;
                if !close {
                    return Err(fail(format!("the accumulated d_{name}[{j}]"), sum[j], expected));
                }
            }
            let expected = if mixed[i] == Want::Write { &grads[i] } else { &added[i] };
            if both[i].as_bytes() != expected.as_bytes() {
                return Err(fail(format!("d_{name} among mixed wants"), both[i].to_f64()[0], expected.to_f64()[0]));
            }
            if let Some((fused_outs, fused, plain)) = &fused {
                let same = |a: &[Buffer], b: &[Buffer]| a.iter().zip(b).all(|(a, b)| a.as_bytes() == b.as_bytes());
                if !same(fused_outs, &outs) {
                    return Err(fail(
                        "an output of the fused pass".into(),
                        fused_outs[0].to_f64()[0],
                        outs[0].to_f64()[0],
                    ));
                }
                for (what, k) in [("fused", 0), ("fused accumulated", 1)] {
                    let (f, u) = (&fused[k][i], &plain[k][i]);
                    if let Some(j) = f.to_f64().iter().zip(u.to_f64()).position(|(a, b)| a.to_bits() != b.to_bits()) {
                        return Err(fail(format!("the {what} d_{name}[{j}]"), f.to_f64()[j], u.to_f64()[j]));
                    }
                }
            }
        }
    }
    Ok(report)
}

fn normal_like(spec: Spec, seed: u64, site: u32) -> Buffer {
    let mut values = vec![0.0; spec.shape.numel()];
    Stream::new(seed, site).fill_normal(&mut values, |x| x);
    Buffer::from_f64(spec.dtype, spec.shape.dims(), &values)
}

/// A numeric derivative and how far it may be off by the stencil's own error.
#[derive(Clone, Copy)]
struct Derivative {
    value: f64,
    doubt: f64,
}

/// Numeric derivatives of one input: of each entry if it is small, and along a random direction.
struct Numeric {
    entries: Vec<Derivative>,
    direction: Vec<f64>,
    along: Derivative,
    /// What rounding leaves of a derivative.
    noise: f64,
}

impl Numeric {
    fn of(bench: &mut Bench, ins: &[Buffer], i: usize, w: &[f64], options: &Options) -> Self {
        let base = ins[i].to_f64();
        let mut moved = ins.to_vec();
        let mut scale: f64 = 1e-300;
        let mut stencil = |towards: &dyn Fn(usize) -> f64, h: f64| -> f64 {
            let mut at = |t: f64| -> f64 {
                let x: Vec<f64> = base.iter().enumerate().map(|(j, x)| x + t * towards(j)).collect();
                moved[i].set_f64(&x);
                let y = bench.forward(&moved).swap_remove(0).to_f64();
                scale = scale.max(y.iter().zip(w).map(|(y, w)| (y * w).abs()).sum());
                dot(&y, w)
            };
            // f'(0) ≈ (f(−2h) − 8f(−h) + 8f(h) − f(2h)) / 12h; the error falls with h⁴.
            (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
        };
        // A quarter of the step has a 256th of the error.
        let mut derivative = |towards: &dyn Fn(usize) -> f64, h: f64| -> Derivative {
            let (coarse, value) = (stencil(towards, h), stencil(towards, h / 4.0));
            Derivative { value, doubt: (coarse - value).abs() / 50.0 }
        };
        let mut direction = vec![0.0; base.len()];
        Stream::new(options.seed, 3000 + i as u32).fill_normal(&mut direction, |x| x);
        let norm = direction.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-300);
        direction.iter_mut().for_each(|x| *x /= norm);
        let along = derivative(&|j| direction[j], options.step);
        let entries = if base.len() <= options.entrywise {
            (0..base.len())
                .map(|e| derivative(&|j| f64::from(u8::from(j == e)), options.step * base[e].abs().max(1.0)))
                .collect()
        } else {
            Vec::new()
        };
        Self { entries, direction, along, noise: 1e-15 * scale / options.step * 16.0 }
    }

    fn compare(&self, grad: &[f64], options: &Options, report: &mut Report) -> Result<(), (String, f64, f64)> {
        let along = dot(grad, &self.direction);
        let pairs = self.entries.iter().enumerate().map(|(j, &n)| (format!("[{j}]"), grad[j], n));
        for (what, claimed, numeric) in pairs.chain([(" along a random direction".into(), along, self.along)]) {
            let Derivative { value: expected, doubt } = numeric;
            let size = claimed.abs().max(expected.abs());
            let difference = (claimed - expected).abs();
            if doubt > 100.0 * (options.tolerance * size + self.noise) {
                report.unchecked += 1;
                continue;
            }
            // Written so that NaN fails.
            let close = difference <= options.tolerance * size + self.noise + doubt;
            if !close {
                return Err((what, claimed, expected));
            }
            if size <= self.noise / options.tolerance {
                report.unchecked += 1;
            } else {
                report.checked += 1;
                report.worst = report.worst.max(difference / size);
            }
        }
        Ok(())
    }
}
