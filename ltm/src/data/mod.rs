//! Tokens and batches.
//!
//! [`shards`] are files of tokens; a [`folder`] prepared by this program also has a manifest. A [`dataset`] is a stream
//! of tokens from files or memory. [`sources`] cut it into samples, and the embedded corpus into stories. [`batches`]
//! collect samples, shuffled for training.
//!
//! Tokens stay in their files; the order of samples takes 4 bytes per sample, the positions of documents 16 bytes per
//! document.

pub mod batches;
pub mod checksum;
pub mod dataset;
pub mod folder;
pub mod shards;
pub mod sources;
pub mod tokenizer;

pub use batches::{Batch, Shuffle};
pub use dataset::Dataset;
pub use folder::{Manifest, Split, has_validation, tokenizer_of};
pub use shards::{DataFile, ShardWriter};
pub use sources::{SampleInfo, Sequences, Source, Stories, Tail};
pub use tokenizer::{Bytes, Tokenizer};

/// Tokens of the tokenizer [`Bytes`] as a data set called "memory".
#[cfg(test)]
pub(crate) fn memory(tokens: &[u16]) -> Dataset {
    let file = DataFile { path: "memory".into(), ..DataFile::default() };
    let tokenizer: std::sync::Arc<dyn Tokenizer> = std::sync::Arc::new(Bytes);
    Dataset::from_tokens(file, tokens.to_vec(), &tokenizer).unwrap()
}
