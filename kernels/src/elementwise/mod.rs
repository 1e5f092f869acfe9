//! Functions of one element of each input, with broadcasting. A function is a row in each of three tables: its facts
//! (`Elementwise::row`), its value and its derivative (`cpu.rs`, and for a GPU `kernel.cu`).

mod cpu;
#[cfg(test)]
mod tests;

use crate::case::{Case, Fill, Input, Sizes};
use crate::launch::{THREADS, args, over};
use crate::{check, cost};
use engine::cuda::{Arg, Gpu, Grid, Module, Pointer};
use engine::{
    Buffer, Context, Cost, DType, Device, Element, Error, Op, Output, Pass, Reads, Result, Spec, Want, with_real,
};
use std::ops::Range;

pub(crate) static KERNELS: Module = Module::new("elementwise", include_str!("kernel.cu"));

/// 2√(2/π), the factor of u in the exponent of the Gaussian error linear unit.
const LINEAR: f64 = 1.595_769_121_605_730_7;
/// 2√(2/π) · 0.044715, the factor of u³.
const CUBIC: f64 = LINEAR * 0.044_715;

/// Declares an enum, and counts its variants, so that a list of all functions that lacks one does not compile.
macro_rules! counted {
    ($(#[$about:meta])* pub enum $name:ident {
        $($(#[$doc:meta])* $variant:ident $(($constant:ty))? $({ $($constants:tt)* })?,)*
    }) => {
        $(#[$about])*
        pub enum $name { $($(#[$doc])* $variant $(($constant))? $({ $($constants)* })?,)* }

        const FUNCTIONS: usize = [$(stringify!($variant)),*].len();
    };
}

counted! {
/// `x [..] → y [..]`, or `a, b [..] → y [..]`: a function of each element.
///
/// One input has the shape of the result. The others have the same shape, its last dimensions (so that they are repeated over the
/// leading ones), or are one number `[1]`. The gradient of a repeated input is a sum, whose order depends only on the sizes.
/// Memory-bound.
///
/// - Formula: `y = f(x)` or `y = f(a, b)` in every element, with the f of the function
/// - VJP: `d_x = d_y ⊙ ∂y/∂x`, summed over the elements that read the same element of x
/// - Source: elementary
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elementwise {
    /// `a + b`
    Add,
    /// `a − b`
    Sub,
    /// `a·b`
    Mul,
    /// `a/b`
    Div,
    /// `−x`
    Neg,
    /// `eˣ`
    Exp,
    /// `ln x` of positive numbers.
    Log,
    /// `√x` of positive numbers.
    Sqrt,
    /// `xᵖ`: of any number if p is an integer, else of positive ones.
    Pow(f64),
    /// `tanh x`
    Tanh,
    /// `1/(1 + e⁻ˣ)`
    Sigmoid,
    /// `max(x, 0)`, with slope 0 at 0.
    Relu,
    /// `x/(1 + e⁻ˣ)`; Hendrycks and Gimpel, arXiv 1606.08415.
    Silu,
    /// The Gaussian error linear unit in GPT-2's form, `½x (1 + tanh(√(2/π) (x + 0.044715 x³)))`; Hendrycks and Gimpel, arXiv
    /// 1606.08415.
    Gelu,
    /// `|x|`, with slope 0 at 0.
    Abs,
    /// `min(max(x, low), high)`, with slope 1 at both bounds.
    Clamp {
        /// The lower bound.
        low: f64,
        /// The upper bound.
        high: f64,
    },
    /// `a` where the condition is above zero, else `b`. The condition has no gradient: what it is computed from must not need one
    /// through it.
    Where,
    /// `(a − b)²`
    SquaredError,
    /// `−t ln σ(x) − (1 − t) ln(1 − σ(x))` of logits x and targets t between 0 and 1, with σ(x) = 1/(1 + e⁻ˣ); exact digits also for
    /// large logits.
    BinaryCrossEntropy,
}
}

/// Every function, with constants for tests; the power twice.
const ALL: [Elementwise; FUNCTIONS + 1] = [
    Elementwise::Add,
    Elementwise::Sub,
    Elementwise::Mul,
    Elementwise::Div,
    Elementwise::Neg,
    Elementwise::Exp,
    Elementwise::Log,
    Elementwise::Sqrt,
    Elementwise::Pow(3.0),
    Elementwise::Pow(-0.7),
    Elementwise::Tanh,
    Elementwise::Sigmoid,
    Elementwise::Relu,
    Elementwise::Silu,
    Elementwise::Gelu,
    Elementwise::Abs,
    Elementwise::Clamp { low: -0.5, high: 1.25 },
    Elementwise::Where,
    Elementwise::SquaredError,
    Elementwise::BinaryCrossEntropy,
];

/// Repeated inputs, for tests: a label, a function, and for every input the number of leading dimensions (of three) that it leaves
/// out, 3 for one number.
const REPEATED: [(&str, Elementwise, &[usize]); 5] = [
    ("bias", Elementwise::Add, &[0, 2]),
    ("positions", Elementwise::Add, &[0, 1]),
    ("one number", Elementwise::Mul, &[0, 3]),
    ("of a repeated input", Elementwise::Div, &[2, 0]),
    ("three shapes", Elementwise::Where, &[1, 0, 3]),
];

/// The facts of a function.
struct Row {
    /// Its number in `kernel.cu`.
    code: i32,
    name: &'static str,
    arguments: &'static [&'static str],
    /// Operations of the value.
    flops: usize,
    /// For every input: the operations of its gradient, and what the derivative reads, a bit each of A to Y.
    gradients: &'static [(usize, u16)],
}

/// What a derivative reads: the inputs, the result.
const A: u16 = 1;
const B: u16 = 2;
const Y: u16 = 8;

impl Elementwise {
    fn row(self) -> Row {
        let row = |code, name, arguments, flops, gradients| Row { code, name, arguments, flops, gradients };
        match self {
            Self::Add => row(0, "add", &["a", "b"], 1, &[(0, 0), (0, 0)]),
            Self::Sub => row(1, "sub", &["a", "b"], 1, &[(0, 0), (1, 0)]),
            Self::Mul => row(2, "mul", &["a", "b"], 1, &[(1, B), (1, A)]),
            Self::Div => row(3, "div", &["a", "b"], 1, &[(1, B), (3, B | Y)]),
            Self::Neg => row(4, "neg", &["x"], 1, &[(1, 0)]),
            Self::Exp => row(5, "exp", &["x"], 1, &[(1, Y)]),
            Self::Log => row(6, "log", &["x"], 1, &[(1, A)]),
            Self::Sqrt => row(7, "sqrt", &["x"], 1, &[(2, Y)]),
            Self::Pow(_) => row(8, "pow", &["x"], 3, &[(5, A)]),
            Self::Tanh => row(9, "tanh", &["x"], 1, &[(3, Y)]),
            Self::Sigmoid => row(10, "sigmoid", &["x"], 4, &[(3, Y)]),
            Self::Relu => row(11, "relu", &["x"], 1, &[(1, Y)]),
            Self::Silu => row(12, "silu", &["x"], 5, &[(9, A)]),
            Self::Gelu => row(13, "gelu", &["u"], 7, &[(16, A)]),
            Self::Abs => row(14, "abs", &["x"], 1, &[(1, A)]),
            Self::Clamp { .. } => row(15, "clamp", &["x"], 2, &[(2, A)]),
            Self::Where => row(16, "where", &["condition", "a", "b"], 1, &[(0, 0), (1, A), (1, A)]),
            Self::SquaredError => row(17, "squared_error", &["a", "b"], 2, &[(3, A | B), (3, A | B)]),
            Self::BinaryCrossEntropy => {
                row(18, "binary_cross_entropy", &["logits", "targets"], 7, &[(6, A | B), (1, A)])
            }
        }
    }

    /// Its constants.
    fn constants(self) -> [f64; 2] {
        match self {
            Self::Pow(p) => [p, 0.0],
            Self::Clamp { low, high } => [low, high],
            _ => [0.0; 2],
        }
    }
}

impl Op for Elementwise {
    fn name(&self) -> &'static str {
        self.row().name
    }

    fn arguments(&self) -> &'static [&'static str] {
        self.row().arguments
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let names = self.arguments();
        let dtype = check::real(names[0], ins[0])?;
        for (name, x) in names.iter().zip(ins) {
            check::that(x.dtype == dtype, || format!("{name} is {x}, must hold {dtype} like {}", names[0]))?;
        }
        if let Self::Clamp { low, high } = *self {
            check::that(low <= high, || format!("the lower bound {low} must not exceed the upper bound {high}"))?;
        }
        let size = |i: &usize| (ins[*i].shape.numel(), ins[*i].shape.rank());
        let most = (0..ins.len()).rev().max_by_key(size).unwrap_or(0);
        let result = ins[most];
        let fits = |x: &Spec| result.shape.dims().ends_with(x.shape.dims()) || x.shape.dims() == [1];
        if let Some(i) = ins.iter().position(|x| !fits(x)) {
            // The first input is right.
            let (wrong, like) = if i == 0 { (most, i) } else { (i, most) };
            let likeness = "or its last dimensions, or [1]; or the other way round";
            let message = format!("must be {} like {}, {likeness}", ins[like], names[like]);
            return Err(Error::usage(format!("{} is {}, {message}", names[wrong], ins[wrong])));
        }
        Ok(vec![Output { name: "y", spec: result }])
    }

    fn differentiable(&self, i: usize) -> bool {
        !matches!((self, i), (Self::Where, 0))
    }

    fn domain(&self, _i: usize) -> Range<f64> {
        match self {
            Self::Log | Self::Sqrt => 0.0..f64::INFINITY,
            Self::Pow(p) if p.fract() != 0.0 => 0.0..f64::INFINITY,
            _ => f64::NEG_INFINITY..f64::INFINITY,
        }
    }

    fn reads(&self, wants: &[Want]) -> Reads {
        let gradients = self.row().gradients.iter().zip(wants).filter(|(_, want)| want.is_wanted());
        let reads = gradients.fold(0, |all, ((_, reads), _)| all | reads);
        Reads { ins: reads & !Y, outs: u16::from(reads & Y != 0) }
    }

    fn forward(&self, cx: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let y = &mut outs[0];
        if let Device::Cuda(gpu) = cx.device {
            let [f, p, q, a, la, b, lb, c, lc] = self.operands(ins);
            let args = args![f, p, q, a, la, b, lb, c, lc, &*y, y.len(), row(ins)];
            return over(&**gpu, y, &KERNELS, "forward", args);
        }
        with_real!(y.dtype(), T => cpu::forward::<T>(*self, slices(ins), y.as_mut_slice()))
    }

    fn vjp(&self, cx: &mut Context, wants: &[Want], ins: &[&Buffer], outs: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        for (i, want) in wants.iter().copied().enumerate().filter(|(_, want)| want.is_wanted()) {
            let (n, d_x) = (d_y.len(), &mut d[i]);
            if let Device::Cuda(gpu) = cx.device {
                let partials = cx.scratch_at(DType::F32, Blocks::of(d_x.len(), n).partials());
                self.gradient_on(&**gpu, i, (ins, outs[0], d_y), want, d_x, partials);
                continue;
            }
            with_real!(d_y.dtype(), T => {
                let partials = cx.scratch::<T>(cpu::partials(d_x.len(), n));
                let y = if outs[0].is_empty() { &[] } else { outs[0].as_slice() };
                cpu::vjp::<T>(*self, i, slices(ins), [y, d_y.as_slice()], want, d_x.as_mut_slice(), partials);
            });
        }
    }

    /// The result's gradient is the input's if the input is not repeated; the planner compares their shapes.
    fn passes_through(&self, i: usize) -> bool {
        matches!((self, i), (Self::Add, _) | (Self::Sub, 0))
    }

    fn scratch(&self, device: &Device, ins: &[Spec], pass: Pass) -> usize {
        let n = elements(ins);
        let partials = |x: &Spec| match device {
            Device::Cuda(_) => Blocks::of(x.shape.numel(), n).partials() * DType::F32.size(),
            Device::Cpu(_) => cpu::partials(x.shape.numel(), n) * x.dtype.size(),
        };
        ins.iter().enumerate().filter(|&(i, _)| pass.gives(i)).map(|(_, x)| partials(x)).max().unwrap_or(0)
    }

    fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
        let row = self.row();
        let n = elements(ins);
        let sum = |x: &Spec| if x.shape.numel() < n { n } else { 0 };
        let gradients: Vec<usize> = row.gradients.iter().zip(ins).map(|((flops, _), x)| flops * n + sum(x)).collect();
        cost::of(self, ins, pass, row.flops * n, &gradients)
    }
}

/// The elements of the result.
fn elements(ins: &[Spec]) -> usize {
    ins.iter().map(|x| x.shape.numel()).max().unwrap_or(0)
}

/// The inputs, none in the place of those that are not given.
fn slices<'a, T: Element>(ins: &[&'a Buffer]) -> [&'a [T]; 3] {
    std::array::from_fn(|i| ins.get(i).filter(|x| !x.is_empty()).map_or(&[][..], |x| x.as_slice()))
}

/// How a GPU sums the gradient of a repeated input: the result as rows of `period` elements, a multiple of the input's, in blocks
/// of rows.
struct Blocks {
    period: usize,
    rows_per_block: usize,
    blocks: usize,
}

impl Blocks {
    /// For `own` elements of the input and `n` of the result; no blocks if the input is not repeated.
    fn of(own: usize, n: usize) -> Self {
        // A period is at least as wide as a block of threads.
        let period = own * (THREADS as usize).div_ceil(own.max(1));
        let rows = if own == n { 0 } else { n.div_ceil(period.max(1)) };
        let rows_per_block = rows.div_ceil((rows / 32).clamp(1, 64)).max(1);
        Self { period, rows_per_block, blocks: rows.div_ceil(rows_per_block) }
    }

    fn partials(&self) -> usize {
        self.period * self.blocks
    }
}

/// The row of `for_my_elements`: 0 if packs stay within every repeated input, else 1.
fn row(ins: &[&Buffer]) -> usize {
    usize::from(!ins.iter().all(|x| x.len() == 1 || x.len().is_multiple_of(8)))
}

impl Elementwise {
    /// The first arguments of the kernels: the function, its constants, and its inputs with their lengths.
    fn operands(self, ins: &[&Buffer]) -> [Arg; 9] {
        let [p, q] = self.constants().map(|x| Arg::F32(x as f32));
        let at = |i: usize| ins.get(i).map_or(Arg::Pointer(0), |x| Arg::from(*x));
        let len = |i: usize| Arg::from(ins.get(i).map_or(0, |x| x.len()));
        [Arg::I32(self.row().code), p, q, at(0), len(0), at(1), len(1), at(2), len(2)]
    }

    /// The gradient of input `i` on a GPU, from the inputs, the result and its gradient.
    fn gradient_on(
        self,
        gpu: &dyn Gpu,
        i: usize,
        (ins, y, d_y): (&[&Buffer], &Buffer, &Buffer),
        want: Want,
        d_x: &Buffer,
        partials: Pointer,
    ) {
        let [f, p, q, a, la, b, lb, c, lc] = self.operands(ins);
        let (n, own) = (d_y.len(), d_x.len());
        if own == n {
            let args = args![f, p, q, a, la, b, lb, c, lc, y, d_y, n, i, want, d_x, row(ins)];
            return over(gpu, d_x, &KERNELS, "backward", args);
        }
        let Blocks { period, rows_per_block, blocks } = Blocks::of(own, n);
        let args = args![f, p, q, a, la, b, lb, c, lc, y, d_y, n, i, partials, period, rows_per_block];
        let grid = Grid::with_blocks([period.div_ceil(THREADS as usize), blocks, 1], THREADS);
        gpu.launch(&KERNELS.kernel("sums", d_y.dtype()), grid, args);
        let args = args![partials, period * blocks, want, d_x, own];
        gpu.launch(&KERNELS.kernel("fold", d_y.dtype()), Grid::covering(32 * own, THREADS), args);
    }
}

/// Copies or adds a gradient unchanged; on a GPU this room's kernels must be loaded.
pub fn pass_on(cx: &mut Context, want: Want, d_out: &Buffer, d_in: &mut Buffer) {
    let none = &Buffer::empty();
    let wants = [want, Want::Skip];
    let mut d = [std::mem::take(d_in), Buffer::empty()];
    Elementwise::Add.vjp(cx, &wants, &[none, none], &[none], d_out, &mut d);
    *d_in = std::mem::take(&mut d[0]);
}

/// Adds a tensor, repeated over the leading axes, to `y` on a GPU; this room's kernels must be loaded.
pub fn add_repeated(gpu: &dyn Gpu, y: &Buffer, x: &Buffer) {
    let [f, p, q, a, la, b, lb, c, lc] = Elementwise::Add.operands(&[y, x]);
    over(gpu, y, &KERNELS, "forward", args![f, p, q, a, la, b, lb, c, lc, y, y.len(), row(&[y, x])]);
}

/// Every function on the decoder's hidden states; then what broadcasting adds: the bias of a linear map, learned positions, one
/// number, and an input that is repeated in the first place.
pub fn cases(s: &Sizes) -> Vec<Case> {
    let hidden = [s.batch, s.tokens, s.dim()];
    let fill = |f: Elementwise, i: usize| match (f, i) {
        // Near zero, their slopes are too steep for differences.
        (Elementwise::Log | Elementwise::Sqrt | Elementwise::Pow(_), _) | (Elementwise::Div, 1) => {
            Fill::Between { low: 0.3, high: 3.0 }
        }
        (Elementwise::BinaryCrossEntropy, 1) => Fill::Between { low: 0.0, high: 1.0 },
        _ => Fill::NORMAL,
    };
    let case = |label: &str, f: Elementwise, dims: &[&[usize]]| {
        let ins = dims.iter().enumerate().map(|(i, dims)| Input::new(dims, fill(f, i))).collect();
        Case::new(label, f, ins)
    };
    let all = ALL.iter().map(|&f| case("hidden", f, &vec![&hidden[..]; f.arguments().len()]));
    let repeated = REPEATED.iter().map(|&(label, f, leading)| {
        // The dimensions that an input leaves out, or all but one number.
        let dims = leading.iter().map(|&left_out| if left_out < 3 { &hidden[left_out..] } else { &[1][..] });
        case(label, f, &dims.collect::<Vec<_>>())
    });
    all.chain(repeated).collect()
}
