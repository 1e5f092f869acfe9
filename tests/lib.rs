//! Shared helpers of the cross-crate tests. They panic on failure.

pub mod driver;
pub mod measured;
pub mod packages;
pub mod products;
pub mod shim;
pub mod threads;

use ltm::config::Config;
use ltm::data::Batch;

/// The preset `tiny` with settings such as `model.dim=24 model.heads=2`, resolved.
pub fn tiny(settings: &str) -> Config {
    let mut config = Config::preset("tiny").expect("a preset");
    config.set_all(settings).expect("settings");
    config.resolved().expect("a configuration")
}

/// Samples 0, 1, … of `tokens` tokens that differ from round to round. Some targets are ignored.
pub fn batch(samples: usize, tokens: usize, round: usize) -> Batch {
    let mut batch = Batch::new(samples, tokens);
    for i in 0..samples * tokens {
        batch.tokens[i] = ((i + round) * 11 % 200) as i32;
        batch.targets[i] = if i % 7 == 3 { -1 } else { (i * 17 % 250) as i32 };
    }
    batch
}
