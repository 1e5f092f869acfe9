//! Text, tokens and batches.
pub mod checksum;
mod csv;
pub mod documents;
pub mod formats;
#[cfg(feature = "cli")]
pub mod gpt2;
pub mod tokenizer;
