//! Tests that bits do not depend on the number of threads, the instruction set or the rest of the batch.

use crate::{Bench, weights};
use autograd::Id;
use engine::{DType, Device, simd};
use ltm::config::{Config, Noise, Precision, SlowGradient};
use ltm::data::{Batch, SampleInfo};
use ltm::learn::FastOptions;
use ltm::train::Trainer;
use tests::tiny;

const SETTINGS: &str = "model.dim=48 model.heads=3 model.seq=40 model.window=9 model.latents=3 fast.steps=4 \
                        train.batch=3 slow.warmup=1";

/// Sample `id` is the same sequence at any position.
fn batch(ids: &[u32], n: usize) -> Batch {
    let mut batch = Batch::new(ids.len(), n);
    for (b, &id) in ids.iter().enumerate() {
        for i in 0..n {
            let token = |i: usize| ((i * 7 + id as usize * 13 + i * i) % 256) as i32;
            batch.tokens[b * n + i] = token(i);
            batch.targets[b * n + i] = if i < n - 4 { token(i + 1) } else { -1 };
        }
        batch.samples[b] = SampleInfo { id, scored: n as u32 - 4, bytes: n as u64 - 4, ..SampleInfo::default() };
    }
    batch
}

/// All weights as bytes after two training steps with these changes of the configuration.
fn train(change: fn(&mut Config)) -> Vec<u8> {
    let mut config = tiny(SETTINGS);
    change(&mut config);
    let n = config.model.seq;
    let mut trainer = Trainer::new(config, &Device::CPU).unwrap();
    for step in 0..2 {
        trainer.train(&batch(&[3 * step, 3 * step + 1, 3 * step + 2], n)).unwrap();
    }
    weights(&trainer)
}

#[test]
fn training_has_the_same_bits_on_any_number_of_threads_and_every_instruction_set() {
    let precisions: [fn(&mut Config); 2] = [|_| (), |c| c.train.precision = Precision::Bf16];
    let [f32, bf16] = precisions.map(|precision| {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train(precision))
        };
        let reference = run(1);
        for threads in [2, 3, 7] {
            assert!(run(threads) == reference, "{threads} threads");
        }
        // This changes the instruction set of the whole process, whose bits do not depend on it.
        simd::for_each_level(|level| assert!(train(precision) == reference, "{level}"));
        reference
    });
    assert!(f32 != bf16, "products in bf16 were not used");
}

/// The settings of the public reference code are also deterministic.
#[test]
fn another_seed_gives_other_weights() {
    let reference = train(|_| ());
    assert!(train(|c| c.train.seed = 1) != reference, "seed");
    assert!(train(|c| c.fast.noise = Noise::Fixed) != reference, "noise");
    assert!(train(|c| c.slow.gradient = SlowGradient::Trajectory) != reference, "trajectory");
}

/// Posterior and score of sample `id` in a batch.
fn posterior(ids: &[u32], id: u32) -> (Vec<u8>, f64) {
    let mut bench = Bench::new(&format!("{SETTINGS} train.batch={}", ids.len()), DType::F32, 5);
    let fast = bench.fast(3, &FastOptions::default());
    let score = bench.score(&fast);
    bench.load(&batch(ids, bench.config.model.seq));
    let store = &mut bench.store;
    fast.fit(store, 0.1, 4, |_, _| ());
    score.begin(store);
    let row = ids.iter().position(|&i| i == id).unwrap();
    let nll = score.draw(store, 2).unwrap().nll[row];
    let bytes = |id: Id| {
        let all = store.get(id).as_bytes();
        let len = all.len() / ids.len();
        all[row * len..(row + 1) * len].to_vec()
    };
    ([bytes(fast.latents.mu), bytes(fast.latents.logvar)].concat(), nll)
}

#[test]
fn a_posterior_does_not_depend_on_its_batch() {
    let alone = posterior(&[11], 11);
    assert!(posterior(&[11, 4], 11) == alone);
    assert!(posterior(&[1, 2, 3, 11, 5], 11) == alone);
    assert!(posterior(&[12], 12).0 != alone.0, "another sample has another posterior");
}
