//! The zero-shot suite: evaluates a model on several corpora that it was not trained on.
//!
//! A [`Set`] describes files, documents in them, how words become text ([`Detokenise`]), and how text becomes
//! sequences; [`sets`] reads them from a file. [`Suite`] scores them and keeps finished results, so that nothing is
//! done twice. [`KNOWN`] has the paper's seven sets with their published figures.

mod detokenise;
mod documents;
mod file;
mod published;
mod run;
mod sets;
mod table;

pub use detokenise::Detokenise;
pub use file::sets;
pub use published::{CAPTION, others};
pub use run::{Entry, Judged, RESULTS, Request, Suite, Watch};
pub use sets::{KNOWN, Known, Published, Set, known};
pub use table::text;
