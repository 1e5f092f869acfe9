//! Latent Thought Models on a purpose-built engine: configuration, model, learning, evaluation, generation and data.
//!
//! Of errors: what plans fails if the configuration contradicts itself, what reads numbers if the device has failed. Only what
//! goes beyond that is said of a function.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod config;
pub mod corpus;
pub mod data;
pub mod evaluate;
pub mod generate;
pub mod hash;
pub mod json;
pub mod learn;
pub mod model;
pub mod mutate;
pub mod run;
pub mod safetensors;
pub mod shell;
pub mod train;
