//! Speed that can be trusted: what every op and every whole step takes on this machine, and how near that is to what the
//! machine can do.
//!
//! # What is measured
//! Every room's cases at the sizes of a configuration, forward, and backward for those gradients that the plans of training
//! ask the op for; forward and backward in one where the plans do it so. Then whole fast steps, the slow step's gradient and
//! update, and training steps, with tokens per second; their FLOPs are the plans' own count, so that the share of the peak
//! is the model FLOPs utilisation.
//!
//! # How time is taken
//! * All rows are measured in several passes, one after the other, and every pass takes its memory anew: on a machine that is
//!   shared, times of the same second resemble each other more than those of two minutes do. Training steps of more than 25
//!   seconds are measured in fewer of them, and a GPU makes one pass unless it is to be compared. In a pass,
//! * work runs unmeasured until caches, threads and clock rates have settled. Short work is repeated within a sample until
//!   the clock's resolution does not matter. A row is the median of all its samples with their 20 and 80 % quantiles.
//! * *Hot*: the same work ran a moment before. *Cold*: before each sample all threads walk through memory larger than the
//!   last-level cache. Rows that would take at most a fiftieth longer to fetch everything from memory are measured hot only.
//! * On a GPU, repeats are recorded and launched as one, so that what is timed is the device and not the launching; the host
//!   waits before and after. *Cold* is the time of work behind a clearing of more memory than the cache holds, less that of
//!   the clearing alone. Fast steps are launched as in training, and timed as a loop.
//!
//! # What it is compared with
//! Two ceilings are measured before, between and after all rows. On the CPU, with the same threads as the rows: the peak is
//! chains of fused multiply-adds that never leave the registers; the bandwidth is the best of reading, of the triad a ← b + s·c and
//! of an update in place, as an optimiser makes it, in bytes that the program reads and writes, on arrays larger than the
//! last-level cache each. (A line that is written without having been read is fetched all the same, so the triad moves a third
//! more than it counts.) On a GPU: a large square product in the type that is measured, and a large copy. Medians count, and a machine whose speed changes shows it as spread. A row's shares are of
//! the ceilings as measured just before and after it; headers, pictures and baselines have the whole run's.

mod ceiling;
mod compare;
mod meter;
mod report;
mod roofline;
mod row;
mod run;
mod work;

pub use ceiling::{Ceilings, fma_burst};
pub use compare::{CHANCE, LEAST, compare};
pub use meter::{Cache, Effort};
pub use report::{Comparison, Machine, Rate, Report};
pub use roofline::roofline;
pub use row::{Numbers, Roof, Row, Samples, Task, median};
pub use run::{STEPS, Setup, measure_all};
pub use work::{Bench, Work, works};
