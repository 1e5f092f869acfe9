//! Latent Thought Models on a purpose-built engine: configuration, model, learning, evaluation, generation and data.

pub mod checkpoint;
pub mod config;
pub mod corpus;
pub mod data;
pub mod hash;
pub mod json;
pub mod safetensors;

#[cfg(test)]
mod mutate;
