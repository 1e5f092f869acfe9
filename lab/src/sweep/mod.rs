//! Sweeps: one configuration varied along a few axes, every point an ordinary run.
//!
//! A [`Sweep`] says what varies and expands into [`Point`]s; an [`Outcome`] says what became of one; [`figures`] draws the
//! results as the paper's three curves. Reading the file and training are the program's part.

mod figures;
mod outcome;
mod points;
mod spec;
mod table;
#[cfg(test)]
mod tests;

pub use figures::{FIGURES, figures};
pub use outcome::{Finished, Judgement, Outcome, Status};
pub use points::Point;
pub use spec::{Size, Sweep};
pub use table::{Cost, csv, plan, text};
