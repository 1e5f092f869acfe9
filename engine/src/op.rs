//! The trait of an op. The planner and the runner use ops only through this trait.

use crate::cuda::Pointer;
use crate::{Buffer, DType, Device, Element, Error, Result, Spec};
use std::fmt::Debug;
use std::ops::Range;

/// What a VJP does with one input's gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// Do not compute it.
    Skip,
    /// Overwrite the buffer.
    Write,
    /// Add to the buffer.
    Add,
}

impl Want {
    /// Whether the gradient is wanted.
    pub fn is_wanted(self) -> bool {
        self != Self::Skip
    }
}

/// The most inputs, and the most outputs, of an op: [`Reads`] has a bit for each.
pub const MOST: usize = u16::BITS as usize;

/// The inputs and outputs that a VJP reads, so that the planner keeps them. Bit `i` stands for number `i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Inputs.
    pub ins: u16,
    /// Outputs: the result and the residuals.
    pub outs: u16,
}

impl Reads {
    /// From lists of numbers.
    pub fn of(ins: &[usize], outs: &[usize]) -> Self {
        let bits = |list: &[usize]| list.iter().fold(0, |bits, i| bits | 1 << i);
        Self { ins: bits(ins), outs: bits(outs) }
    }
}

/// One output of an op. The first is the result, which alone has a gradient. The others are residuals that the VJP reads, or
/// numbers for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Name in the printed plan, in the field's standard terms (`rstd`, `lse`).
    pub name: &'static str,
    /// Type and shape.
    pub spec: Spec,
}

/// A form of an input that an op reads faster than the input itself, e.g. a weight in the order of a product's inner loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Number of the input.
    pub input: usize,
    /// Type and shape.
    pub spec: Spec,
}

/// A pass of an op.
#[derive(Clone, Copy, Debug)]
pub enum Pass<'a> {
    /// The forward pass.
    Forward,
    /// The VJP for these wants.
    Vjp(&'a [Want]),
    /// Forward and VJP in one, for these wants.
    Fused(&'a [Want]),
}

impl<'a> Pass<'a> {
    /// What it does with the inputs' gradients; empty for a forward pass.
    pub fn wants(self) -> &'a [Want] {
        match self {
            Self::Forward => &[],
            Self::Vjp(wants) | Self::Fused(wants) => wants,
        }
    }

    /// Whether it computes the gradient of input `i`.
    pub fn gives(self, i: usize) -> bool {
        self.wants().get(i).is_some_and(|want| want.is_wanted())
    }
}

/// The two numbers of a roofline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations; a fused multiply-add counts two, an exp or a square root one.
    pub flops: u64,
    /// The fewest bytes that move between memory and the processor.
    pub bytes: u64,
}

impl std::ops::Add for Cost {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        // Saturates; real costs are far below the limit.
        Self { flops: self.flops.saturating_add(other.flops), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |a, b| a + b)
    }
}

/// The device and scratch memory of an op's call.
pub struct Context<'a> {
    /// Where to run.
    pub device: &'a Device,
    /// Memory of at least [`Op::scratch`] bytes with unspecified contents.
    pub scratch: &'a mut Buffer,
}

impl Context<'_> {
    /// The first `len` elements of the scratch memory.
    ///
    /// # Panics
    /// If the op declared less.
    pub fn scratch<T: Element>(&mut self, len: usize) -> &mut [T] {
        self.scratch.respec(Spec::new(T::DTYPE, &[len]));
        self.scratch.as_mut_slice()
    }

    /// The device address of the first of `len` elements of the scratch memory.
    ///
    /// # Panics
    /// If the op declared less, because a GPU would write past the end.
    pub fn scratch_at(&self, dtype: DType, len: usize) -> Pointer {
        let spec = Spec::new(dtype, &[len]);
        assert!(spec.bytes() <= self.scratch.capacity(), "{spec} is more scratch memory than the op declared");
        Pointer { address: self.scratch.address(), dtype }
    }
}

/// A differentiable function of tensors.
///
/// Every input and output is contiguous and row-major. Buffers have the specs that [`infer`](Self::infer) was given and
/// returned. The VJP gets an empty buffer for an input or output that it does not list in [`reads`](Self::reads), and
/// for a gradient that is not wanted. The scalar CPU code is the specification of the op.
pub trait Op: Send + Sync + Debug {
    /// Name in errors, plans and tables, e.g. `rmsnorm`.
    fn name(&self) -> &'static str;

    /// Names of the inputs, for errors.
    fn arguments(&self) -> &'static [&'static str];

    /// Types and shapes of the outputs. [`infer`] has checked the number of `ins`.
    ///
    /// # Errors
    /// If an argument is wrong; the error names it and says what would be right.
    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>>;

    /// Whether [`vjp`](Self::vjp) can give the gradient of input `i`.
    fn differentiable(&self, _i: usize) -> bool {
        true
    }

    /// The numbers for which the op is defined and smooth, for input `i`: an open interval, by default all real numbers. The
    /// logarithm has `0.0..f64::INFINITY`. Cases draw from it.
    fn domain(&self, _i: usize) -> Range<f64> {
        f64::NEG_INFINITY..f64::INFINITY
    }

    /// The inputs and outputs that the VJP reads for these wants (at least one): by default only the result's gradient.
    fn reads(&self, _wants: &[Want]) -> Reads {
        Reads::default()
    }

    /// Computes all outputs. Their buffers may hold anything before.
    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]);

    /// The vector-Jacobian product: the gradients of the wanted inputs (at least one) for the result's gradient
    /// `d_out`.
    fn vjp(
        &self,
        cx: &mut Context,
        wants: &[Want],
        ins: &[&Buffer],
        outs: &[&Buffer],
        d_out: &Buffer,
        d_ins: &mut [Buffer],
    );

    /// Whether [`forward_vjp`](Self::forward_vjp) exists. An op that ends a graph (a loss) can be cheaper in one pass.
    fn fuses(&self) -> bool {
        false
    }

    /// Forward and VJP for `d_out` = 1 in one pass. The outputs have the same bits as from [`forward`](Self::forward),
    /// and the gradients differ from those of [`vjp`](Self::vjp) only by rounding.
    fn forward_vjp(
        &self,
        _cx: &mut Context,
        _wants: &[Want],
        _ins: &[&Buffer],
        _outs: &mut [Buffer],
        _d_ins: &mut [Buffer],
    ) {
        unreachable!("{} has no fused pass", self.name());
    }

    /// Whether the gradient of input `i` is the result's gradient itself, so that no copy is needed. Holds only where the input
    /// has the result's type and shape.
    fn passes_through(&self, _i: usize) -> bool {
        false
    }

    /// Whether the result is the first input's elements in the same order with another shape, so that a plan can let both share
    /// one buffer and need not run the op.
    fn only_reshapes(&self) -> bool {
        false
    }

    /// The forms of inputs that a pass on `device` reads faster, by number; `None` for a form that only another pass
    /// reads.
    ///
    /// If an input changes less often than it is used, a plan makes its forms once per change and appends them to the
    /// inputs in this order. Without them the op reads the inputs themselves, with the same bits.
    fn forms(&self, _device: &Device, _ins: &[Spec], _pass: Pass) -> Vec<Option<Form>> {
        Vec::new()
    }

    /// Makes form number `number` of its input.
    fn prepare(&self, _cx: &mut Context, _number: usize, _input: &Buffer, _form: &mut Buffer) {
        unreachable!("{} has no prepared forms", self.name());
    }

    /// Scratch memory in bytes on `device`.
    fn scratch(&self, _device: &Device, _ins: &[Spec], _pass: Pass) -> usize {
        0
    }

    /// Floating-point operations and bytes.
    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost;
}

/// Types and shapes of the outputs of `op`.
///
/// # Errors
/// As [`Op::infer`]; if the number of inputs differs from the number of arguments; if the op has more than [`MOST`] inputs or
/// outputs, or no output.
pub fn infer(op: &dyn Op, ins: &[Spec]) -> Result<Vec<Output>> {
    let names = op.arguments();
    if names.len() != ins.len() {
        let (takes, names) = (names.len(), names.join(", "));
        return Err(Error::usage(format!("takes {takes} inputs ({names}), got {}", ins.len())));
    }
    let outputs = op.infer(ins)?;
    match (ins.len(), outputs.len()) {
        (0..=MOST, 1..=MOST) => Ok(outputs),
        (inputs, outputs) => Err(Error::usage(format!(
            "has {inputs} inputs and {outputs} outputs; an op may have up to {MOST} inputs and 1 to {MOST} outputs"
        ))),
    }
}

/// An update in place at the end of a phase: an optimiser's step, a ring buffer's next entry.
pub trait Update: Send + Sync + Debug {
    /// Name in plans and tables.
    fn name(&self) -> &'static str;

    /// Reads `ins`, changes `state`.
    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]);

    /// Scratch memory in bytes on `device`.
    fn scratch(&self, _device: &Device, _ins: &[Spec], _state: &[Spec]) -> usize {
        0
    }

    /// Floating-point operations and bytes.
    fn cost(&self, ins: &[Spec], state: &[Spec]) -> Cost;
}
