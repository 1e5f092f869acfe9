//! Criterion benchmarks over the cases that `ltm bench` measures, with warm caches: `cargo bench -p benches -- rmsnorm`. The
//! preset is `small` with one sample a batch, or the one that the variable `LTM_PRESET` names.

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
            // Inputs of a case that is filtered out are not drawn.
            let bench = Bench::new(&work, DType::F32, &Device::Cpu);
            let mut bench = bench.unwrap_or_else(|e| panic!("{e}"));
            bencher.iter(|| bench.run());
        });
    }
    criterion.final_summary();
    Ok(())
}
