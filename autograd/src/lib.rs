//! Reverse-mode automatic differentiation for graphs that run many times: record once, plan, replay.
//!
//! A [`Graph`] records ops on symbolic values and checks shapes. A [`Plan`] decides for every op which inputs need a
//! gradient, what must be saved, when it runs (once per weight update, once per batch, at every step) and which slot of
//! the shared arena holds each value. A plan can be printed. Running it does no shape logic and allocates nothing.
//! [`gradcheck`] compares the gradients of any op and any recorded function with central differences.
//!
//! This is `examples/gradient.rs`:
//! ```
#![doc = include_str!("../examples/gradient.rs")]
//! ```

#![forbid(unsafe_code)]

mod build;
pub mod gradcheck;
mod graph;
mod instr;
mod liveness;
mod plan;
mod print;
mod run;
mod store;

pub use graph::{Graph, Phase, Value};
pub use plan::{Plan, Request};
pub use run::NonFinite;
pub use store::{Id, Store};
