//! The front door: values with methods, which record the same graph as [`Graph::apply`].
//!
//! A [`Tape`] holds a graph, the buffers of its leaves, and the parameters. A [`Tensor`] is a value of the graph. A [`Program`]
//! is a plan: it computes values, or takes an optimiser's step.
//!
//! ```
//! use autograd::prelude::*;
//!
//! let tape = Tape::new(0);
//! let x = tape.input("x", &[4, 1]);
//! let target = tape.input("target", &[4, 1]);
//! let y = x.dense("hidden", 16).tanh().dense("out", 1);
//! let loss = (y - target).square().mean();
//! let mut learn = tape.minimize(loss, Optimizer::adamw(0.02))?;
//!
//! tape.set(x, &[-1.0f32, -0.3, 0.4, 1.0]);
//! tape.set(target, &[1.0f32, 0.09, 0.16, 1.0]);
//! for _ in 0..200 {
//!     learn.run();
//! }
//! assert!(learn.number(loss) < 1e-3);
//! # Ok::<(), Error>(())
//! ```
//!
//! Shapes are checked when an op is recorded. The first error is kept and returned by the call that plans, so that formulas need
//! no question marks; what is recorded after it is ignored.

mod optimizer;
mod program;
mod tensor;

pub use optimizer::{Optimizer, Rule};
pub use program::Program;
pub use tensor::Tensor;

use crate::gradcheck::{self, Report};
use crate::{Graph, Id, Phase, Plan, Request, Store, Value};
use engine::rng::Stream;
use engine::{Buffer, DType, Device, Element, Error, Op, Result, Shape, Spec};
use std::cell::{Cell, RefCell};
use std::panic::Location;

/// The first numbers of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
    /// Normal with mean 0 and this standard deviation, from the tape's seed.
    Normal(f64),
    /// These numbers.
    Given(Vec<f64>),
}

/// A graph that is being recorded, the buffers of its leaves, and its parameters.
#[derive(Debug)]
pub struct Tape {
    seed: u64,
    dtype: DType,
    graph: RefCell<Graph>,
    store: RefCell<Store>,
    parameters: RefCell<Vec<Parameter>>,
    /// The number of the training step, for ops that draw noise.
    step: Cell<Option<Value>>,
    /// Ops so far that draw noise.
    noisy: Cell<u32>,
    error: RefCell<Option<Error>>,
}

#[derive(Clone, Debug)]
struct Parameter {
    name: String,
    value: Value,
}

impl Tape {
    /// An empty tape of f32 on the CPU. The seed determines the parameters' first numbers and all noise.
    pub fn new(seed: u64) -> Self {
        Self::on(Device::CPU, DType::F32, seed)
    }

    /// An empty tape on `device` with floats of this type. Gradient checks need f64 on the CPU.
    pub fn on(device: Device, dtype: DType, seed: u64) -> Self {
        Self {
            seed,
            dtype,
            graph: RefCell::default(),
            store: RefCell::new(Store::new(device)),
            parameters: RefCell::default(),
            step: Cell::default(),
            noisy: Cell::default(),
            error: RefCell::default(),
        }
    }

    /// An input of floats, zero until [`set`](Self::set).
    #[track_caller]
    pub fn input(&self, name: &str, dims: &[usize]) -> Tensor<'_> {
        let shape = self.shape(name, dims, Location::caller());
        self.leaf(name, Phase::Batch, Buffer::new(Spec { dtype: self.dtype, shape }))
    }

    /// An input of integers: tokens, targets, numbers of rows. Zero until [`set`](Self::set).
    #[track_caller]
    pub fn integers(&self, name: &str, dims: &[usize]) -> Tensor<'_> {
        let shape = self.shape(name, dims, Location::caller());
        self.leaf(name, Phase::Batch, Buffer::new(Spec { dtype: DType::I32, shape }))
    }

    /// Numbers that don't change.
    #[track_caller]
    pub fn constant(&self, dims: &[usize], numbers: &[f64]) -> Tensor<'_> {
        let shape = self.shape("a constant", dims, Location::caller());
        if numbers.len() != shape.numel() {
            self.refuse(format!("a constant of {dims:?} got {} numbers", numbers.len()), Location::caller());
            return self.leaf("constant", Phase::Update, Buffer::new(Spec { dtype: self.dtype, shape }));
        }
        self.leaf("constant", Phase::Update, Buffer::from_f64(self.dtype, shape.dims(), numbers))
    }

    /// The parameter `name`; a new one if there is none yet, so that a model may be recorded several times with the same weights.
    #[track_caller]
    pub fn parameter(&self, name: &str, dims: &[usize], init: Init) -> Tensor<'_> {
        let known = self.parameters.borrow().iter().find(|p| p.name == name).map(|p| p.value);
        if let Some(value) = known {
            let spec = self.graph.borrow().spec(value);
            if spec.shape.dims() != dims {
                self.refuse(format!("parameter {name} is {spec}, cannot also be {dims:?}"), Location::caller());
            }
            return Tensor { tape: self, value };
        }
        let shape = self.shape(name, dims, Location::caller());
        let (n, site) = (shape.numel(), self.parameters.borrow().len() as u32);
        let mut numbers = match init {
            Init::Zeros => vec![0.0; n],
            Init::Ones => vec![1.0; n],
            Init::Given(numbers) => numbers,
            Init::Normal(std) => {
                let mut numbers = vec![0.0; n];
                Stream::new(self.seed, site).fill_normal(0, &mut numbers, |x| std * x);
                numbers
            }
        };
        if numbers.len() != n {
            self.refuse(format!("parameter {name} of {dims:?} got {} numbers", numbers.len()), Location::caller());
            numbers.resize(n, 0.0);
        }
        let tensor = self.leaf(name, Phase::Update, Buffer::from_f64(self.dtype, shape.dims(), &numbers));
        self.parameters.borrow_mut().push(Parameter { name: name.into(), value: tensor.value });
        tensor
    }

    /// Every parameter's name and value, in the order recorded.
    pub fn parameters(&self) -> Vec<(String, Tensor<'_>)> {
        let parameters = self.parameters.borrow();
        parameters.iter().map(|p| (p.name.clone(), Tensor { tape: self, value: p.value })).collect()
    }

    /// Overwrites an input or parameter.
    ///
    /// # Panics
    /// If it is neither, or if the type or number of elements differs.
    #[track_caller]
    pub fn set<T: Element>(&self, leaf: Tensor, numbers: &[T]) {
        let (id, given) = (self.id(leaf), Spec::new(T::DTYPE, &[numbers.len()]));
        let fits = (id.spec.dtype, id.spec.shape.numel()) == (given.dtype, numbers.len());
        assert!(fits, "{} is {}, cannot be set to {given}", self.graph.borrow().describe(leaf.value), id.spec);
        self.store.borrow_mut().get_mut(id).write(numbers);
    }

    /// The numbers of an input or parameter.
    ///
    /// # Errors
    /// If the device has failed.
    ///
    /// # Panics
    /// If it is neither.
    pub fn get(&self, leaf: Tensor) -> Result<Vec<f64>> {
        self.store.borrow().get(self.id(leaf)).read_f64()
    }

    /// Records an op, for instance one of your own, and returns its result.
    #[track_caller]
    pub fn apply(&self, op: impl Op + 'static, ins: &[Tensor]) -> Tensor<'_> {
        let values: Vec<Value> = ins.iter().map(|x| x.value).collect();
        if ins.iter().any(|x| !self.owns(*x)) {
            self.refuse(format!("{}: an input belongs to another tape", op.name()), Location::caller());
        }
        if self.error.borrow().is_none() {
            let applied = self.graph.borrow_mut().apply(op, &values);
            match applied {
                Ok(value) => return Tensor { tape: self, value },
                Err(error) => *self.error.borrow_mut() = Some(error),
            }
        }
        // Nothing is computed after an error; any value of this tape will do.
        let own = ins.iter().find(|x| self.owns(**x)).map(|x| x.value);
        own.map_or_else(|| self.constant(&[1], &[0.0]), |value| Tensor { tape: self, value })
    }

    /// A program that computes these values. Dropout drops here too: to evaluate, record the model again without it.
    ///
    /// # Errors
    /// The first error of recording; if the device lacks memory.
    pub fn compute(&self, values: &[Tensor]) -> Result<Program<'_>> {
        let keep = values.iter().map(|&value| self.own(value)).collect::<Result<_>>()?;
        self.program(&Request { keep, ..Request::default() })
    }

    /// A program that computes `loss`, one number, and the gradients of all parameters on which it depends.
    ///
    /// # Errors
    /// As [`compute`](Self::compute); if an op on the way has no gradient.
    pub fn gradients(&self, loss: Tensor) -> Result<Program<'_>> {
        self.program(&self.request(loss)?)
    }

    /// A program that computes `loss`, one number, and takes the optimiser's step on all parameters on which it depends.
    ///
    /// # Errors
    /// As [`gradients`](Self::gradients).
    pub fn minimize(&self, loss: Tensor, optimizer: Optimizer) -> Result<Program<'_>> {
        self.gradients(loss)?.with_optimizer(optimizer)
    }

    /// Compares the gradients of all parameters with central differences, at their numbers and the inputs'.
    ///
    /// # Errors
    /// The first error of recording; if the tape is not of f64; if a gradient is wrong.
    pub fn check(&self, loss: Tensor) -> Result<Report> {
        let wants = self.request(loss)?.wants;
        if self.dtype != DType::F64 {
            return Err(Error::usage(format!("a gradient check needs a tape of f64, not of {}", self.dtype)));
        }
        let (graph, mut store) = (self.graph.borrow(), self.store.borrow_mut());
        let checked = gradcheck::check_graph(&graph, &mut store, loss.value, &wants, &gradcheck::Options::default());
        checked.map_err(|failure| Error::new(failure.to_string()))
    }

    /// The loss, kept, and the gradients of the parameters on which it depends.
    fn request(&self, loss: Tensor) -> Result<Request> {
        self.sound()?;
        self.own(loss)?;
        let graph = self.graph.borrow();
        let wants =
            self.parameters.borrow().iter().map(|p| p.value).filter(|&p| graph.depends(loss.value, p)).collect();
        Ok(Request { root: Some(loss.value), wants, keep: vec![loss.value], ..Request::default() })
    }

    fn program(&self, request: &Request) -> Result<Program<'_>> {
        self.sound()?;
        let computes =
            matches!(self.dtype, DType::F32 | DType::F64) || matches!(self.store.borrow().device, Device::Cuda(_));
        if !computes {
            return Err(Error::usage(format!("the CPU does not compute in {}", self.dtype)));
        }
        let plan = Plan::new(&self.graph.borrow(), &mut self.store.borrow_mut(), request)?;
        self.store.borrow().ready()?;
        Ok(Program::new(self, plan, request.wants.clone()))
    }

    fn owns(&self, tensor: Tensor) -> bool {
        std::ptr::eq(tensor.tape, self)
    }

    /// The value of a tensor of this tape.
    fn own(&self, tensor: Tensor) -> Result<Value> {
        let value = self.owns(tensor).then_some(tensor.value);
        value.ok_or_else(|| Error::usage("a tensor of another tape cannot be computed on this one"))
    }

    fn sound(&self) -> Result<()> {
        self.error.borrow().clone().map_or(Ok(()), Err)
    }

    /// The shape of these sizes. If there are too many, that is an error, and any shape will do.
    fn shape(&self, what: &str, dims: &[usize], caller: &Location) -> Shape {
        if dims.len() <= Shape::MOST {
            return Shape::new(dims);
        }
        self.refuse(format!("{what} of {dims:?} has more than {} dimensions", Shape::MOST), caller);
        Shape::new(&[1])
    }

    /// Keeps the first error.
    fn refuse(&self, message: String, caller: &Location) {
        let error = || Error::usage(format!("{message} (recorded at {}:{})", caller.file(), caller.line()));
        self.error.borrow_mut().get_or_insert_with(error);
    }

    fn leaf(&self, name: &str, phase: Phase, buffer: Buffer) -> Tensor<'_> {
        let id = self.store.borrow_mut().insert(buffer);
        Tensor { tape: self, value: self.graph.borrow_mut().leaf(name, phase, id) }
    }

    fn id(&self, leaf: Tensor) -> Id {
        let value = self.own(leaf).unwrap_or_else(|e| panic!("{e}"));
        self.graph.borrow().leaf_id(value).expect("an input or a parameter")
    }

    /// The number of the training step, and a site for another op that draws noise.
    fn noise(&self) -> (Tensor<'_>, u32) {
        let value = self.step.get().unwrap_or_else(|| self.integers("step", &[1]).value);
        self.step.set(Some(value));
        // Apart from the streams of the parameters, which count from 0.
        self.noisy.set(self.noisy.get() + 1);
        (Tensor { tape: self, value }, u32::MAX - self.noisy.get())
    }
}
