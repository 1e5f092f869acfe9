//! Speed that can be trusted: what every op and whole step takes, and how near that is to what the machine can do.

mod ceiling;
mod compare;
mod effort;
mod meter;
mod report;
mod row;
mod run;
mod samples;
mod steps;
mod work;

pub use ceiling::{Ceiling, Ceilings, Mark};
pub use compare::{CHANCE, LEAST, Verdict, compare};
pub use effort::Effort;
pub use meter::{Cache, measure};
pub use report::{Baseline, Comparison, Machine, Report};
pub use row::{Limit, Roof, Row};
pub use run::{STEPS, Setup, measure_ops};
pub use samples::Samples;
pub use steps::measure_steps;
pub use work::{Bench, OwnedPass, Work, works};
