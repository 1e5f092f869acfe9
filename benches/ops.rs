//! Criterion benchmarks of the cases that `ltm bench` measures, with warm caches, on a thread of the pool and after the same
//! check against f64.
//!
//! `cargo bench` measures the most expensive case of every op that training uses, forward and backward, in about a minute. It
//! leaves out what takes seconds: the head.
//! `cargo bench -- rmsnorm` measures all that contain the name, `cargo bench -- /` all there are. The preset is `small` with
//! one sample per batch; the environment variable `LTM_PRESET` names another. `RAYON_NUM_THREADS` sets the threads.

#![forbid(unsafe_code)]

use criterion::Criterion;
use engine::{DType, Device, Result, parallel};
use lab::bench::{Work, dearest, works};
use ltm::config::Config;
use std::time::Duration;

/// FLOPs of work that takes seconds.
const LONG: u64 = 20_000_000_000;

fn main() -> Result<()> {
    let mut config = Config::preset(&std::env::var("LTM_PRESET").unwrap_or_else(|_| "small".into()))?;
    config.train.batch = 1;
    let all = works(&config.resolved()?, DType::F32)?;
    // A name is the first argument; cargo appends its own.
    let is_named = std::env::args().nth(1).is_some_and(|argument| !argument.starts_with('-'));
    let training: Vec<Work> = all.iter().filter(|work| work.trains && work.cost.flops < LONG).cloned().collect();
    let chosen: Vec<&Work> = if is_named { all.iter().collect() } else { dearest(&training) };
    parallel::in_pool(|| measure(&chosen));
    if !is_named {
        println!(
            "{} of {} cases: `cargo bench -- NAME` measures others, `cargo bench -- /` all",
            chosen.len(),
            all.len()
        );
    }
    Ok(())
}

fn measure(works: &[&Work]) {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for work in works {
        criterion.bench_function(&format!("{}/{}/{}", work.room, work.case, work.name), |bencher| {
            // Draw the inputs here, so that cases which are filtered out cost nothing.
            let checked = work.check(&Device::CPU).and_then(|_| work.call(&Device::CPU));
            let mut call = checked.unwrap_or_else(|e| panic!("{e}"));
            bencher.iter(|| call.run());
        });
    }
    criterion.final_summary();
}
