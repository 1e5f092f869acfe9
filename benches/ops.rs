//! Every case of every op, forward and in the backward passes of training, with warm caches.

use benches::Cases;
use criterion::Criterion;
use std::time::Duration;

fn main() {
    let cases = Cases::new().unwrap_or_else(|e| panic!("{e}"));
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for case in &cases.all {
        criterion.bench_function(&case.name, |bencher| {
            // Inputs of a case that is filtered out are not drawn.
            let mut run = cases.ready(case).unwrap_or_else(|e| panic!("{e}"));
            bencher.iter(&mut run);
        });
    }
    criterion.final_summary();
}
