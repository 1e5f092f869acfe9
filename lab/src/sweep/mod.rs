//! Sweeps: one configuration varied along a few axes, every point an ordinary run.
//!
//! A [`Sweep`] says what varies and expands into [`Point`]s; an [`Outcome`] says what became of one; [`figures`] draws the
//! results as the paper's three curves. Training is the program's part.

mod figures;
mod outcome;
mod points;
mod spec;
mod table;
#[cfg(test)]
mod tests;

pub use figures::figures;
pub use outcome::{Finished, Outcome};
pub use points::Point;
pub use spec::{Settings, Sweep};
pub use table::{csv, plan, text};
