//! Tokens and batches.
//!
//! [`shards`] are files of tokens, with a [`manifest`] beside them where this program has prepared them. A [`dataset`] is a stream
//! of tokens, wherever they lie; [`batches`] cuts it into samples; [`stories`] are samples of the embedded corpus.
//!
//! Tokens stay in their files; the order of samples takes 4 bytes per sample, the places of documents 16 bytes per document.

pub mod batches;
pub mod checksum;
pub mod dataset;
mod folder;
pub mod manifest;
pub mod shards;
pub mod stories;
pub mod tokenizer;
mod writer;

pub use batches::{Batch, Documents, LongDocuments, Order, SampleInfo, Sampler, Source, Tail, Windows};
pub use dataset::Dataset;
pub use folder::named_split;
pub use folder::{splits, tokenizer_of};
pub use manifest::{Manifest, Split};
pub use stories::Stories;
pub use tokenizer::{Bytes, Tokenizer};
pub use writer::ShardWriter;
