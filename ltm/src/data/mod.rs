//! Text, tokens and batches.
//!
//! From text to tokens: [`documents`] streams documents out of files in the [`formats`] people have; [`encode`] runs a
//! [`tokenizer`] over them in parallel; [`prepare`](mod@prepare) writes the tokens to [`shards`] with a [`manifest`] beside them.
//! From tokens to batches: a [`dataset`] is a stream of tokens, wherever they lie; [`batches`] cuts it into samples;
//! [`stories`] are samples of the embedded corpus.
//!
//! No text or token is held in memory, except small texts that are opened without being prepared; the order of samples takes
//! 4 bytes per sample, the places of documents 16 bytes per document.

pub mod batches;
pub mod checksum;
mod compressed;
mod csv;
pub mod dataset;
pub mod documents;
pub mod encode;
mod folder;
pub mod formats;
pub mod gpt2;
pub mod manifest;
pub mod prepare;
pub mod shards;
pub mod stories;
pub mod tokenizer;
mod writer;

pub use batches::{Batch, Documents, LongDocuments, Order, SampleInfo, Sampler, Source, Tail, Windows};
pub use dataset::Dataset;
pub use folder::named_split;
pub use folder::{splits, tokenizer_of};
pub use formats::{Format, FormatWords};
pub use manifest::{Manifest, Split};
pub use prepare::{PrepareOptions, Report, prepare};
pub use stories::Stories;
pub use tokenizer::{Tokenizer, by_name};
pub use writer::OutputFolder;
