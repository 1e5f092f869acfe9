//! Latent Thought Models on a purpose-built engine: configuration, model, learning, evaluation, generation and data; and the
//! masked diffusion models to compare them with.
//!
//! Errors: functions that plan fail if the configuration contradicts itself; functions that read numbers fail if the
//! device has failed. The documentation of a function mentions only other errors.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod config;
pub mod corpus;
pub mod data;
pub mod diffusion;
pub mod evaluate;
pub mod generate;
pub mod hash;
pub mod json;
pub mod learn;
pub mod model;
pub mod mutate;
pub mod ranks;
pub mod run;
pub mod safetensors;
pub mod shell;
pub mod train;
