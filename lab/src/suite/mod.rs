//! The zero-shot suite: a model judged by texts of several corpora that it has not learnt from.
//!
//! A [`Set`] says which files, which part of them is a document, how its words become text ([`Detokenise`]), and how text
//! becomes sequences. [`Sequences`] streams it: neither a file nor a corpus is held in memory, a document only up to
//! [`PIECE`](crate::text::documents::PIECE). [`KNOWN`] has the seven sets of the paper with their published figures.

mod detokenise;
mod sequences;
mod sets;
mod tally;
mod text;

pub use detokenise::{Detokenise, NAMES as DETOKENISERS};
pub use sequences::Sequences;
pub use sets::{Group, KNOWN, Known, Published, Set, known};
pub use tally::Tally;
pub use text::{LeftOut, Part, Texts};
