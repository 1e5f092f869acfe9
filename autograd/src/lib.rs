//! Reverse-mode automatic differentiation for graphs that run many times: record once, plan, replay.
//!
//! A [`Graph`] records ops on symbolic values and checks shapes. A [`Plan`] decides for every op which inputs need a
//! gradient, what must be saved, when it runs (once per weight update, once per batch, at every step) and which slot of
//! the shared arena each value lives in; it prints itself. Running it does no shape logic and allocates nothing.
//! [`gradcheck`] holds gradients, of any op and any function recorded here, against central differences.
//!
//! ```
//! use autograd::gradcheck::Projection;
//! use autograd::{Graph, Phase, Plan, Request, Store};
//! use engine::{Buffer, DType, Device};
//!
//! let mut store = Store::new(Device::Cpu);
//! let numbers = store.insert(Buffer::from_f64(DType::F64, &[2, 3], &[1.0; 6]));
//!
//! // Record: shapes are checked, nothing is computed.
//! let mut g = Graph::new();
//! let x = g.leaf("x", store.get(numbers).spec(), Phase::Step, numbers);
//! let y = g.apply(Projection { seed: 1 }, &[x])?;
//!
//! // Plan: what to differentiate, and by what.
//! let request = Request { root: Some(y), wants: vec![x], keep: vec![y], ..Request::default() };
//! let plan = Plan::new(&g, &mut store, &request)?;
//! assert_eq!(plan.labels(Phase::Step), ["projection", "projection backward"]);
//!
//! // Replay, as often as the numbers change.
//! plan.run_all(&mut store);
//! let before = store.get(plan.value(y)).to_f64()[0];
//! store.get_mut(numbers).set_f64(&[2.0; 6]);
//! plan.run(&mut store, Phase::Step);
//! assert_eq!(store.get(plan.value(y)).to_f64()[0], 2.0 * before);
//! // The gradient of a weighted sum is its weights.
//! let gradient = store.get(plan.grad(x)).to_f64();
//! assert!((gradient.iter().sum::<f64>() - before).abs() < 1e-12);
//! # Ok::<(), engine::Error>(())
//! ```

#![forbid(unsafe_code)]

mod build;
pub mod gradcheck;
mod graph;
mod liveness;
mod plan;
mod print;
mod run;
mod store;

pub use graph::{Graph, Phase, Value};
pub use plan::{Hoist, Plan, Prepare, Request};
pub use run::NonFinite;
pub use store::{Id, Store};
