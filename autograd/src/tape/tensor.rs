use super::{Init, Tape};
use crate::Value;
use engine::Op;
use kernels::dropout::Dropout;
use kernels::elementwise::Elementwise;
use kernels::embedding::{Embedding, ScatterAdd};
use kernels::layernorm::LayerNorm;
use kernels::matmul::{Linear, LinearResidual, MatMul, Stored};
use kernels::permute::Permute;
use kernels::reduce::Reduce;
use kernels::reshape::Reshape;
use kernels::rmsnorm::RmsNorm;
use kernels::self_attention::{Sees, SelfAttention};
use kernels::slice::{Concat, Pad, Slice};
use kernels::softmax::{CrossEntropy, LogSoftmax, Softmax};
use std::ops::{Add, Div, Mul, Neg, Range, Sub};
use std::panic::Location;

/// A value of a [`Tape`]. Every method records one op (two where it says so); [`Elementwise`] describes the shapes that fit.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'t> {
    pub(super) tape: &'t Tape,
    pub(super) value: Value,
}

/// What norms add to the variance.
const EPS: f64 = 1e-5;

impl<'t> Tensor<'t> {
    /// The sizes.
    pub fn dims(self) -> Vec<usize> {
        self.tape.graph.borrow().spec(self.value).shape.dims().to_vec()
    }

    /// The value in the graph below, to use with [`Graph`](crate::Graph) and [`Plan`](crate::Plan).
    pub fn value(self) -> Value {
        self.value
    }

    /// Records an op of one input.
    #[track_caller]
    fn then(self, op: impl Op + 'static) -> Self {
        self.tape.apply(op, &[self])
    }

    /// Records an op of two inputs.
    #[track_caller]
    fn with(self, op: impl Op + 'static, other: Tensor<'t>) -> Self {
        self.tape.apply(op, &[self, other])
    }

    #[track_caller]
    fn number(self, number: f64) -> Self {
        self.tape.constant(&[1], &[number])
    }

    /// eˣ
    #[track_caller]
    pub fn exp(self) -> Self {
        self.then(Elementwise::Exp)
    }

    /// ln x
    #[track_caller]
    pub fn log(self) -> Self {
        self.then(Elementwise::Log)
    }

    /// √x
    #[track_caller]
    pub fn sqrt(self) -> Self {
        self.then(Elementwise::Sqrt)
    }

    /// xᵖ
    #[track_caller]
    pub fn pow(self, p: f64) -> Self {
        self.then(Elementwise::Pow(p))
    }

    /// x²
    #[track_caller]
    pub fn square(self) -> Self {
        self.pow(2.0)
    }

    /// tanh x
    #[track_caller]
    pub fn tanh(self) -> Self {
        self.then(Elementwise::Tanh)
    }

    /// 1/(1 + e⁻ˣ)
    #[track_caller]
    pub fn sigmoid(self) -> Self {
        self.then(Elementwise::Sigmoid)
    }

    /// max(x, 0)
    #[track_caller]
    pub fn relu(self) -> Self {
        self.then(Elementwise::Relu)
    }

    /// x/(1 + e⁻ˣ)
    #[track_caller]
    pub fn silu(self) -> Self {
        self.then(Elementwise::Silu)
    }

    /// The Gaussian error linear unit in GPT-2's form.
    #[track_caller]
    pub fn gelu(self) -> Self {
        self.then(Elementwise::Gelu)
    }

    /// |x|
    #[track_caller]
    pub fn abs(self) -> Self {
        self.then(Elementwise::Abs)
    }

    /// min(max(x, low), high)
    #[track_caller]
    pub fn clamp(self, low: f64, high: f64) -> Self {
        self.then(Elementwise::Clamp { low, high })
    }

    /// `a` where this is above zero, else `b`. Nothing that needs a gradient may go into this.
    #[track_caller]
    pub fn choose(self, a: Tensor<'t>, b: Tensor<'t>) -> Self {
        self.tape.apply(Elementwise::Where, &[self, a, b])
    }

    /// The mean of the squared differences to `target`. Two ops.
    #[track_caller]
    pub fn squared_error(self, target: Tensor<'t>) -> Self {
        self.with(Elementwise::SquaredError, target).mean()
    }

    /// The mean cross-entropy of logits with targets between 0 and 1. Two ops.
    #[track_caller]
    pub fn binary_cross_entropy(self, targets: Tensor<'t>) -> Self {
        self.with(Elementwise::BinaryCrossEntropy, targets).mean()
    }

    /// The mean cross-entropy in nats of logits `[.., V]` with integers `[..]`. Two ops. A target of −1 is ignored, and counts in
    /// the mean with 0.
    #[track_caller]
    pub fn cross_entropy(self, targets: Tensor<'t>) -> Self {
        self.with(CrossEntropy, targets).mean()
    }

    /// `[.., m, k]·[.., k, n]`, or `[.., m, k]·[k, n]`.
    #[track_caller]
    pub fn matmul(self, other: Tensor<'t>) -> Self {
        self.with(MatMul { a: Stored::Plain, b: Stored::Plain }, other)
    }

    /// `x·wᵀ` with w `[out, in]`.
    #[track_caller]
    pub fn linear(self, w: Tensor<'t>) -> Self {
        self.with(Linear, w)
    }

    /// `x·wᵀ + b` with the parameters `name.weight [out, in]`, normal with a standard deviation of 1/√in, and `name.bias [out]`, zero.
    #[track_caller]
    pub fn dense(self, name: &str, out: usize) -> Self {
        let input = self.dims().last().copied().unwrap_or(1);
        let std = 1.0 / (input as f64).sqrt();
        let w = self.tape.parameter(&format!("{name}.weight"), &[out, input], Init::Normal(std));
        let bias = self.tape.parameter(&format!("{name}.bias"), &[out], Init::Zeros);
        self.tape.apply(LinearResidual, &[self, w, bias])
    }

    /// Layer norm of the last axis, with the parameters `name.gain` and `name.bias`.
    #[track_caller]
    pub fn layernorm(self, name: &str) -> Self {
        let dims = &self.dims()[self.dims().len().saturating_sub(1)..];
        let gain = self.tape.parameter(&format!("{name}.gain"), dims, Init::Ones);
        let bias = self.tape.parameter(&format!("{name}.bias"), dims, Init::Zeros);
        self.tape.apply(LayerNorm { eps: EPS }, &[self, gain, bias])
    }

    /// Root-mean-square norm of the last axis, with the parameter `name.gain`.
    #[track_caller]
    pub fn rmsnorm(self, name: &str) -> Self {
        let dims = &self.dims()[self.dims().len().saturating_sub(1)..];
        self.with(RmsNorm { eps: EPS }, self.tape.parameter(&format!("{name}.gain"), dims, Init::Ones))
    }

    /// The rows of this table `[V, d]` with these numbers `[..]`: `[.., d]`.
    #[track_caller]
    pub fn gather(self, rows: Tensor<'t>) -> Self {
        self.with(Embedding, rows)
    }

    /// Sums of this tensor's rows `[.., d]` by number `[..]`: `[rows, d]`.
    #[track_caller]
    pub fn scatter_add(self, numbers: Tensor<'t>, rows: usize) -> Self {
        self.with(ScatterAdd { rows }, numbers)
    }

    /// Self-attention of the queries, keys and values `[B, N, 3d]` with this many heads: `[B, N, d]`.
    #[track_caller]
    pub fn attention(self, heads: usize, sees: Sees) -> Self {
        self.then(SelfAttention { heads, sees })
    }

    /// Zeros with this probability, other elements scaled up; new ones at every step of an optimiser. Programs without an
    /// optimiser drop as the last step did.
    #[track_caller]
    pub fn dropout(self, probability: f64) -> Self {
        let (step, site) = self.tape.noise();
        self.with(Dropout { probability, seed: self.tape.seed, site }, step)
    }

    /// The sum of all elements.
    #[track_caller]
    pub fn sum(self) -> Self {
        self.then(Reduce::sum())
    }

    /// The mean of all elements.
    #[track_caller]
    pub fn mean(self) -> Self {
        self.then(Reduce::mean())
    }

    /// The largest element.
    #[track_caller]
    pub fn max(self) -> Self {
        self.then(Reduce::max())
    }

    /// The sum over an axis, which the result lacks.
    #[track_caller]
    pub fn sum_axis(self, axis: usize) -> Self {
        self.then(Reduce::sum_axis(axis))
    }

    /// The mean over an axis, which the result lacks.
    #[track_caller]
    pub fn mean_axis(self, axis: usize) -> Self {
        self.then(Reduce::mean_axis(axis))
    }

    /// The largest over an axis, which the result lacks.
    #[track_caller]
    pub fn max_axis(self, axis: usize) -> Self {
        self.then(Reduce::max_axis(axis))
    }

    /// Softmax over the last axis.
    #[track_caller]
    pub fn softmax(self) -> Self {
        self.then(Softmax)
    }

    /// The logarithm of the softmax over the last axis.
    #[track_caller]
    pub fn log_softmax(self) -> Self {
        self.then(LogSoftmax)
    }

    /// The same elements with another shape; free.
    #[track_caller]
    pub fn reshape(self, dims: &[usize]) -> Self {
        self.then(Reshape(self.tape.shape("a reshaped tensor", dims, Location::caller())))
    }

    /// The last two axes exchanged.
    #[track_caller]
    pub fn transpose(self) -> Self {
        self.then(Permute::transpose(self.dims().len()))
    }

    /// Axis i of the result is axis `axes[i]` of this.
    #[track_caller]
    pub fn permute(self, axes: &[usize]) -> Self {
        self.then(Permute { axes: axes.to_vec() })
    }

    /// A range of an axis.
    #[track_caller]
    pub fn slice(self, axis: usize, range: Range<usize>) -> Self {
        self.then(Slice { axis, start: range.start, len: range.end.saturating_sub(range.start) })
    }

    /// Zeros before and after on an axis.
    #[track_caller]
    pub fn pad(self, axis: usize, before: usize, after: usize) -> Self {
        self.then(Pad { axis, before, after })
    }

    /// This and others one after the other on an axis.
    #[track_caller]
    pub fn concat(self, axis: usize, others: &[Tensor<'t>]) -> Self {
        let all: Vec<Tensor> = std::iter::once(self).chain(others.iter().copied()).collect();
        let sizes = all.iter().map(|x| x.dims().get(axis).copied().unwrap_or(0)).collect();
        self.tape.apply(Concat { axis, sizes }, &all)
    }
}

impl Neg for Tensor<'_> {
    type Output = Self;

    #[track_caller]
    fn neg(self) -> Self {
        self.then(Elementwise::Neg)
    }
}

/// An operator of two tensors, of a tensor and a number, and of a number and a tensor.
macro_rules! operator {
    ($trait:ident, $method:ident) => {
        impl<'t> $trait for Tensor<'t> {
            type Output = Self;

            #[track_caller]
            fn $method(self, other: Self) -> Self {
                self.with(Elementwise::$trait, other)
            }
        }

        impl<'t> $trait<f64> for Tensor<'t> {
            type Output = Self;

            #[track_caller]
            fn $method(self, other: f64) -> Self {
                self.with(Elementwise::$trait, self.number(other))
            }
        }

        impl<'t> $trait<Tensor<'t>> for f64 {
            type Output = Tensor<'t>;

            #[track_caller]
            fn $method(self, other: Tensor<'t>) -> Tensor<'t> {
                other.number(self).with(Elementwise::$trait, other)
            }
        }
    };
}

operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);
