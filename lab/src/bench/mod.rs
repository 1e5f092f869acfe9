//! The speed of every op at a configuration's sizes and of whole training steps, against the ceilings of this machine; the
//! crate [`roofline`] measures and compares.
//!
//! # What is measured
//! Every op's cases at the sizes of a configuration: forward, backward for the gradients that training needs, and fused
//! where training fuses them; each is checked against the op in f64 before it is timed. Then whole fast steps, the slow step's
//! gradient and update, and training steps, with tokens per second. Their FLOPs are counted from the plans, so the share of
//! the peak is the model FLOPs utilisation.
//!
//! Training steps of more than 25 seconds are measured in fewer passes than ops, and a GPU makes one pass unless runs are
//! compared. On a GPU fast steps are launched as in training, and timed as a loop.

mod picture;
mod run;
mod work;

pub use picture::picture;
pub use run::{STEPS, Setup, Steps, measure_all};
pub use work::{Work, dearest, works};
