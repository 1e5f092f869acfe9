//! The zero-shot suite: a model judged by texts of several corpora that it was not trained on.
//!
//! A [`Set`] says which files, which part of them is a document, how its words become text ([`Detokenise`]), and how text
//! becomes sequences; [`sets`] reads them from a file. [`Suite`] scores them and keeps what is finished, so that nothing is
//! done twice. [`KNOWN`] has the seven sets of the paper with their published figures.

mod detokenise;
mod documents;
mod file;
mod run;
mod sets;
mod table;

pub use detokenise::Detokenise;
pub use file::sets;
pub use run::{Entry, Judged, RESULTS, Request, Suite, Watch};
pub use sets::{KNOWN, Known, Published, Set, known};
pub use table::text;
