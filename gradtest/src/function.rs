//! Functions of tensors in plain Rust, or on the tensors of another library, as ops.

use engine::case::{Case, Input};
use engine::{Buffer, Context, Cost, DType, Op, Output, Pass, Reads, Result, Shape, Spec, Want};
use proptest::strategy::Strategy;
use std::fmt;
use std::sync::Arc;

/// A tensor as a plain function sees it. Integers are given as f64 too.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub dims: Vec<usize>,
    /// The numbers in row-major order.
    pub data: Vec<f64>,
}

impl Tensor {
    /// The innermost size; 1 for a scalar.
    pub fn width(&self) -> usize {
        Shape::new(&self.dims).last()
    }
}

/// The buffers as tensors.
pub(crate) fn tensors<'a>(buffers: impl IntoIterator<Item = &'a Buffer>) -> Vec<Tensor> {
    buffers.into_iter().map(|x| Tensor { dims: x.shape().dims().to_vec(), data: x.to_f64() }).collect()
}

/// A tensor of another library that differentiates. The example `candle` implements it for that library.
pub trait Foreign: Sized {
    /// A tensor of these numbers, for which the library records gradients.
    fn tracked(tensor: &Tensor) -> Self;

    /// Its numbers in row-major order.
    fn numbers(&self) -> Vec<f64>;

    /// The library's gradients of `Σ d_y ⊙ self` for each of `ins`, from which it was computed.
    fn gradients(&self, d_y: &[f64], ins: &[Self]) -> Vec<Vec<f64>>;
}

type Value = dyn Fn(&[Tensor]) -> Vec<f64> + Send + Sync;
type Vjp = dyn Fn(&[Tensor], &[f64]) -> Vec<Vec<f64>> + Send + Sync;

/// A function of tensors with a claimed gradient. It is an [`Op`] of f64, so every test of this crate takes its cases.
///
/// ```
/// use gradtest::{Fill, Function, Input, Strategy, shapes};
///
/// // y = x log x, for x > 0.
/// fn entropy() -> Function {
///     Function::new(
///         "entropy",
///         &["x"],
///         |ins| ins[0].data.iter().map(|x| x * x.ln()).collect(),
///         |ins, d_y| vec![ins[0].data.iter().zip(d_y).map(|(x, d_y)| d_y * (x.ln() + 1.0)).collect()],
///     )
/// }
///
/// let inputs = shapes(2, 4).prop_map(|dims| vec![Input::new(&dims, Fill::Positive)]);
/// gradtest::all(entropy().cases(inputs))?;
/// # Ok::<(), String>(())
/// ```
///
/// A failure prints a regression test that calls a function of this name (`entropy()`), as above.
#[derive(Clone)]
pub struct Function {
    name: &'static str,
    arguments: &'static [&'static str],
    constants: Vec<usize>,
    value: Arc<Value>,
    vjp: Arc<Vjp>,
}

impl Function {
    /// The function `value` of the `arguments`. For the result's gradient (second argument), `vjp` returns the gradient
    /// of every argument; an empty one for a [`constant`](Self::constant).
    ///
    /// The length of the result may depend on shapes only: `value` is first called on numbers of ½ (and integers 0) to
    /// learn it.
    ///
    /// # Panics
    /// When it is checked, if the result or a gradient has another length than it must.
    pub fn new(
        name: &'static str,
        arguments: &'static [&'static str],
        value: impl Fn(&[Tensor]) -> Vec<f64> + Send + Sync + 'static,
        vjp: impl Fn(&[Tensor], &[f64]) -> Vec<Vec<f64>> + Send + Sync + 'static,
    ) -> Self {
        Self { name, arguments, constants: Vec::new(), value: Arc::new(value), vjp: Arc::new(vjp) }
    }

    /// A function on the tensors of another library, with that library's gradient.
    pub fn foreign<T: Foreign>(
        name: &'static str,
        arguments: &'static [&'static str],
        function: impl Fn(&[T]) -> T + Send + Sync + 'static,
    ) -> Self {
        let tracked = |ins: &[Tensor]| ins.iter().map(T::tracked).collect::<Vec<T>>();
        let function = Arc::new(function);
        let value = function.clone();
        Self::new(
            name,
            arguments,
            move |ins| value(&tracked(ins)).numbers(),
            move |ins, d_y| {
                let ins = tracked(ins);
                function(&ins).gradients(d_y, &ins)
            },
        )
    }

    /// Input number `i` has no gradient, e.g. because it holds integers.
    #[must_use]
    pub fn constant(mut self, i: usize) -> Self {
        self.constants.push(i);
        self
    }

    /// Cases with the inputs that a strategy draws: their shapes, and the distributions of their numbers.
    pub fn cases(self, inputs: impl Strategy<Value = Vec<Input>>) -> impl Strategy<Value = Case> {
        inputs.prop_map(move |ins| Case::new(self.name, self.clone(), ins))
    }
}

/// Rust code for it, by the convention that a function of its name returns it.
impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}()", self.name)
    }
}

impl Op for Function {
    fn name(&self) -> &'static str {
        self.name
    }

    fn arguments(&self) -> &'static [&'static str] {
        self.arguments
    }

    fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
        let typical = |spec: &Spec| {
            let number = if spec.dtype.is_float() { 0.5 } else { 0.0 };
            Tensor { dims: spec.shape.dims().to_vec(), data: vec![number; spec.shape.numel()] }
        };
        let len = (self.value)(&ins.iter().map(typical).collect::<Vec<_>>()).len();
        Ok(vec![Output { name: "y", spec: Spec::new(DType::F64, &[len]) }])
    }

    fn differentiable(&self, i: usize) -> bool {
        !self.constants.contains(&i)
    }

    fn reads(&self, _: &[Want]) -> Reads {
        Reads { ins: u16::MAX, outs: 0 }
    }

    fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
        let y = (self.value)(&tensors(ins.iter().copied()));
        assert_eq!(y.len(), outs[0].len(), "{}: the length of the result depends on the numbers", self.name);
        outs[0].write(&y);
    }

    fn vjp(&self, _: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
        let gradients = (self.vjp)(&tensors(ins.iter().copied()), d_y.as_slice());
        assert_eq!(gradients.len(), ins.len(), "{}: the number of gradients, one for each input", self.name);
        for (i, gradient) in gradients.iter().enumerate().filter(|(i, _)| wants[*i].is_wanted()) {
            let name = self.arguments[i];
            assert_eq!(gradient.len(), d[i].len(), "{}: the length of the gradient of {name}", self.name);
            for (d, g) in d[i].as_mut_slice::<f64>().iter_mut().zip(gradient) {
                *d = if wants[i] == Want::Add { *d } else { 0.0 } + g;
            }
        }
    }

    fn cost(&self, _: &[Spec], _: Pass) -> Cost {
        Cost::default()
    }
}
