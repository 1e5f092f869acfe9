//! Sweeps: one configuration varied along a few axes, every point an ordinary run.
//!
//! A [`Sweep`] describes the axes and expands into [`Point`]s. An [`Outcome`] is the result of a point. [`figures`]
//! draws the results as the paper's three curves. The program does the training.

mod figures;
mod outcome;
mod points;
mod spec;
mod table;
#[cfg(test)]
mod tests;

pub use figures::figures;
pub use outcome::{Finished, Outcome};
pub use points::{Point, config_sha256};
pub use spec::{Settings, Sweep};
pub use table::{csv, plan, text};
