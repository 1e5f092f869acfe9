//! Criterion benchmarks of the cases that `ltm bench` measures, with warm caches: `cargo bench -p benches -- rmsnorm`. The
//! preset is `small` with one sample per batch; the environment variable `LTM_PRESET` names another.

#![forbid(unsafe_code)]

use criterion::Criterion;
use engine::{DType, Device, Result};
use lab::bench::{Bench, works};
use ltm::config::Config;
use std::time::Duration;

fn main() -> Result<()> {
    let mut config = Config::preset(&std::env::var("LTM_PRESET").unwrap_or_else(|_| "small".into()))?;
    config.train.batch = 1;
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for work in works(&config.resolved()?, DType::F32)? {
        criterion.bench_function(&format!("{}/{}/{}", work.room, work.case, work.name), |bencher| {
            // Draw the inputs here, so that cases which are filtered out cost nothing.
            let bench = Bench::new(&work, DType::F32, &Device::CPU);
            let mut bench = bench.unwrap_or_else(|e| panic!("{e}"));
            bencher.iter(|| bench.run());
        });
    }
    criterion.final_summary();
    Ok(())
}
