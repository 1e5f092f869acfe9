//! Sweeps: one configuration varied along a few axes, every point an ordinary run.
//!
//! A [`Sweep`] says what varies and expands into [`Point`]s; a [`Ledger`] keeps what became of them, so that nothing is done
//! twice; [`figures`] draws the results as the paper's three curves. Reading the file and training are the program's part.

mod figures;
mod ledger;
mod points;
mod spec;
#[cfg(test)]
mod tests;

pub use figures::{FIGURES, figures};
pub use ledger::{Cost, Judgement, Ledger, Outcome, Trained};
pub use points::Point;
pub use spec::{Size, Sweep};
