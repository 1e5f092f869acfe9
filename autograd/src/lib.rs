#![cfg_attr(feature = "ops", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "ops"), doc = "Reverse-mode automatic differentiation: record once, plan, replay.")]
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
#[cfg(feature = "ops")]
pub mod tape;

/// What a program that builds models needs.
#[cfg(feature = "ops")]
pub mod prelude {
    pub use crate::tape::{Init, Optimizer, Program, Rule, Tape, Tensor};
    pub use engine::rng::Stream;
    pub use engine::{DType, Device, Error, Result};
    pub use kernels::self_attention::Sees;
}

pub use graph::{Graph, Phase, Value};
pub use plan::{Plan, Request};
pub use run::NonFinite;
pub use store::{Id, Store};
