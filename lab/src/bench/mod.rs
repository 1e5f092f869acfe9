//! Reliable speed measurements: the time of every op and of whole steps on this machine, compared with the machine's
//! ceilings.
//!
//! # What is measured
//! Every op's cases at the sizes of a configuration: forward, backward for the gradients that training needs, and fused
//! where training fuses them. Then whole fast steps, the slow step's gradient and update, and training steps, with
//! tokens per second. Their FLOPs are counted from the plans, so the share of the peak is the model FLOPs utilisation.
//!
//! # How time is taken
//! * All rows are measured in several passes, one after the other, and every pass takes its memory anew: on a shared
//!   machine, times within a second are more alike than times minutes apart. Training steps of more than 25 seconds are
//!   measured in fewer passes, and a GPU makes one pass unless runs are compared. In a pass,
//! * work runs unmeasured until caches, threads and clock rates have settled. Short work is repeated within a sample until
//!   the clock's resolution does not matter. A row is the median of all its samples with their 20 and 80 % quantiles.
//! * *Hot*: the same work ran a moment before. *Cold*: before each sample all threads walk through memory larger than
//!   the last-level cache. Rows for which reading everything from memory would take at most a fiftieth longer are only
//!   measured hot.
//! * On a GPU, repeats are recorded and launched as one, so that the time of launches does not count; the host waits
//!   before and after. *Cold* is the time of clearing more memory than the cache holds plus the work, minus the time of
//!   clearing alone. Fast steps are launched as in training, and timed as a loop.
//!
//! # What it is compared with
//! Two ceilings are measured before, between and after all rows. On the CPU, with the same threads as the rows: the
//! peak is chains of fused multiply-adds that never leave the registers. Where AMX multiplies in bf16, the peak is that
//! of bf16 products of blocks in L1, and the f32 peak, the roof of all other work, stands beside it. The bandwidth is the
//! best of reading, of the triad a ← b + s·c and of an update in place, as an optimiser makes it, in bytes that the
//! program reads and writes, on arrays larger than the last-level cache each. (The processor also fetches a cache line
//! that is only written, so the triad moves a third more than it counts.) On a GPU: a large square product in the
//! measured type, and a large copy. Ceilings are medians; if the machine's speed changes, the spread shows it. A row's
//! shares refer to the ceilings measured just before and after it; headers, pictures and saved reports have those of the
//! whole run.

mod ceiling;
mod compare;
mod meter;
mod report;
mod roofline;
mod row;
mod run;
mod work;

pub use ceiling::{Ceilings, bf16_burst, fma_burst};
pub use compare::{CHANCE, LEAST, compare};
pub use meter::{Cache, Effort};
pub use report::{Comparison, Machine, Rate, Report};
pub use roofline::roofline;
pub use row::{Numbers, Roof, Row, Samples, Task, median};
pub use run::{STEPS, Setup, measure_all};
pub use work::{Bench, Work, works};
