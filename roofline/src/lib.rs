//! Reliable times of ops and closures, compared with the peaks of this machine that were measured in the same run.
//!
//! ```
//! use engine::Cost;
//! use roofline::{Effort, Suite};
//! use std::hint::black_box;
//!
//! # fn main() -> engine::Result<()> {
//! let x = vec![1.0f32; 1 << 12];
//! let cost = Cost { flops: 1 << 12, bytes: 4 << 12 };
//! let report = Suite::new("sums", Effort::quick())
//!     .closure("sum", cost, || _ = black_box(black_box(&x).iter().sum::<f32>()))
//!     .run()?;
//! println!("{report}");
//! assert!(report.rows[0].numbers().reached > 0.0);
//! assert!(!roofline::any_slower(&report.compare(&report)?));
//! # Ok(())
//! # }
//! ```
//!
//! [`Effort::full`] takes longer and sees smaller changes. A program can [save](Report::save) its report, and
//! [compare](Report::compare) it with that of another day. [`Suite::checked`] takes a closure together with the check of what it
//! computes, and [`Suite::op_against`] an op together with an independent implementation of it.
//!
//! # An op with its cost
//! An [`Op`](engine::Op) counts its own FLOPs and bytes, and its f32 is checked against its own f64 before it is timed:
//!
//! ```
//! use engine::{Buffer, Context, Cost, Op, Output, Pass, Result, Spec, Want, with_real};
//! use roofline::{Effort, Suite};
//!
//! /// y = x².
//! #[derive(Debug)]
//! struct Square;
//!
//! impl Op for Square {
//!     fn name(&self) -> &'static str {
//!         "square"
//!     }
//!     fn arguments(&self) -> &'static [&'static str] {
//!         &["x"]
//!     }
//!     fn infer(&self, ins: &[Spec]) -> Result<Vec<Output>> {
//!         Ok(vec![Output { name: "y", spec: ins[0] }])
//!     }
//!     fn reads(&self, _: &[Want]) -> engine::Reads {
//!         engine::Reads::of(&[0], &[])
//!     }
//!     fn forward(&self, _: &mut Context, ins: &[&Buffer], outs: &mut [Buffer]) {
//!         with_real!(ins[0].dtype(), T => {
//!             let y = outs[0].as_mut_slice::<T>();
//!             y.iter_mut().zip(ins[0].as_slice::<T>()).for_each(|(y, &x)| *y = x * x);
//!         })
//!     }
//!     fn vjp(&self, _: &mut Context, wants: &[Want], ins: &[&Buffer], _: &[&Buffer], d_y: &Buffer, d: &mut [Buffer]) {
//!         with_real!(ins[0].dtype(), T => {
//!             let (x, d_y) = (ins[0].as_slice::<T>(), d_y.as_slice::<T>());
//!             for (d_x, (&x, &d_y)) in d[0].as_mut_slice::<T>().iter_mut().zip(x.iter().zip(d_y)) {
//!                 let before = if wants[0] == Want::Add { *d_x } else { 0 as T };
//!                 *d_x = before + (x + x) * d_y;
//!             }
//!         })
//!     }
//!     fn cost(&self, ins: &[Spec], pass: Pass) -> Cost {
//!         let n = ins[0].shape.numel() as u64;
//!         match pass {
//!             Pass::Forward => Cost { flops: n, bytes: 8 * n },
//!             _ => Cost { flops: 2 * n, bytes: 12 * n },
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let x = Buffer::from_slice(&[4, 1024], &vec![1.5f32; 4096]);
//! let report = Suite::new("my ops", Effort::quick()).op("rows", Square, vec![x])?.run()?;
//! assert!(report.rows.iter().all(|row| row.checked));
//! println!("{report}");
//! # Ok(())
//! # }
//! ```
//!
//! # How time is taken
//! * All rows are measured in several passes, one after the other, and every pass takes an op's memory anew: on a shared
//!   machine, times within a second are more alike than times minutes apart.
//! * In a pass, work runs unmeasured until caches, threads and clock rates have settled. Short work is repeated within a sample until
//!   the clock's resolution does not matter. A row is the median of all its samples with their 20 and 80 % quantiles.
//! * *Hot*: the same work ran a moment before. *Cold*: before each sample all threads walk through memory larger than
//!   the last-level cache. Rows for which reading everything from memory would take at most a fiftieth longer are only
//!   measured hot.
//! * On a GPU, repeats are recorded and launched as one, so that the time of launches does not count; the host waits
//!   before and after. *Cold* is the time of clearing more memory than the cache holds plus the work, minus the time of
//!   clearing alone.
//! * Work runs on a thread of the pool of `rayon`. Started from outside the pool, every parallel loop would first wake a
//!   thread: on two threads of a virtual machine that took longer than a small op.
//!
//! # What it is compared with
//! Ceilings are measured before, between and after all rows. On the CPU, with the same threads as the rows: the
//! peak is chains of fused multiply-adds that never leave the registers. Where AMX multiplies in bf16, the peak is that
//! of bf16 products of blocks in L1, and the f32 peak, the roof of all other work, stands beside it. The bandwidth is the
//! best of reading, of the triad a ← b + s·c and of an update in place, as an optimiser makes it, in bytes that the
//! program reads and writes, on arrays larger than the last-level cache each. (The processor also fetches a cache line
//! that is only written, so the triad moves a third more than it counts.) The bandwidth of each level of the caches is
//! measured in the same way, with arrays that fit into it. A hot row's roof is that of the smallest level into which its bytes
//! fit, a cold row's that of memory. On a GPU: a large square product in the measured type, and a large copy. Ceilings are
//! medians; if the machine's speed changes, the spread shows it. A row's shares refer to the ceilings measured just before and
//! after it; headers, pictures and saved reports have those of the whole run.
//!
//! # What is refused
//! A result far below the least time under these ceilings is [refused](Report::refuse_impossible): its cost counts too much, or
//! its time is not that of the work. Ceilings are measured too, and noisy: FLOPs may be 1.5 times as fast as the highest peak,
//! bytes 2.5 times as fast as the fastest cache, or memory if the caches were cold. Outputs that differ from their reference are not timed.
//!
//! # When a time has changed
//! [`Report::compare`] calls a row faster, slower, the same or ambiguous: see [`compare`] and [`Verdict`]. Two runs at
//! different times meet different load. [`in_turns`] runs two programs row by row in turns, which cancels it; a program
//! takes part with [`Suite::serve`]. The benchmark of the example `own_op` compares itself with another build in this way.

mod caches;
mod call;
mod ceiling;
mod conditions;
mod memory;
mod meter;
mod peak;
mod recorder;
mod report;
mod row;
mod suite;
mod text;
mod turns;
mod verdict;

pub use call::{Call, check};
pub use ceiling::{Ceilings, Mark};
pub use conditions::{Conditions, Machine};
pub use meter::{Cache, Effort, measure, time};
pub use peak::{bf16_burst, fma_burst};
pub use recorder::Recorder;
pub use report::{CacheRate, Comparison, Rate, Report, any_slower};
pub use row::{MEMORY, Numbers, Roof, Row, Samples, Task, median, quantile};
pub use suite::Suite;
pub use text::comparison_text;
pub use turns::{ROUNDS, in_turns, serve};
pub use verdict::{CHANCE, Change, MARGIN, Verdict, compare, compare_in_turns};

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
