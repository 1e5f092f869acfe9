//! What a GPU is asked for once training is under way: no memory, and within a batch's fast steps nothing that goes to
//! or comes from the host; every step is one launch of what was recorded.

use autograd::Store;
use engine::DType;
use kernels::registry::modules;
use ltm::config::Config;
use ltm::learn::{Fast, FastOptions, Inputs, Slow};
use ltm::model::Params;
use tests::shim::{Counts, Shim, loaded};

const SAMPLES: usize = 2;
const TOKENS: usize = 13;
const STEPS: usize = 6;

fn config() -> Config {
    tests::tiny(&[
        ("model.dim", "16"),
        ("model.heads", "2"),
        ("model.layers", "2"),
        ("model.seq", "13"),
        ("model.window", "5"),
        ("model.latents", "3"),
        ("train.batch", "2"),
        ("fast.steps", "6"),
    ])
}

fn train(compute: DType) {
    let (device, counts) = Shim::counted();
    let config = config();
    let mut store = Store::new(loaded(device, &modules()));
    let params = Params::new(&config.model, DType::F32, &mut store).computed_in(compute);
    params.init(&mut store, 2);
    let inputs = Inputs::new(SAMPLES, TOKENS, DType::F32, &mut store);
    let options = FastOptions::default();
    let fast = Fast::new(&config.model, &config.fast, &params, &inputs, &mut store, &options).expect("a fast loop");
    let z = fast.latents.z;
    let slow = Slow::new(&config.model, &config.slow, &params, &inputs, Some(z), &[], &mut store).expect("a slow step");
    for round in 0..3 {
        let before = counts();
        inputs.load(&mut store, &config.model, &tests::batch(SAMPLES, TOKENS, round)).expect("a batch that fits");
        let mut behind: Vec<Counts> = Vec::new();
        fast.fit(&mut store, 0.1, round as u32, |_, _| behind.push(counts()));
        slow.gradient(&mut store);
        slow.apply(&mut store, 1e-3, round as u64 + 1);
        assert_eq!(behind.len(), STEPS);
        for (t, pair) in behind.windows(2).enumerate() {
            let [before, after] = pair else { unreachable!("windows of two") };
            let place = format!("{compute}, batch {round}, fast step {}", t + 1);
            let quiet = (after.memory, after.transfers) == (before.memory, before.transfers);
            assert!(quiet, "{place}: nothing is allocated, sent or fetched");
            // The first batch's first steps are run and recorded.
            if round > 0 || t > 1 {
                let (work, replays) = (after.work - before.work, after.replays - before.replays);
                assert_eq!((work, replays), (0, 1), "{place}: one launch of what was recorded");
            }
        }
        if round > 0 {
            assert_eq!(counts().memory, before.memory, "{compute}: no memory after the first batch");
        }
    }
}

#[test]
fn a_fast_step_is_one_launch_in_f32() {
    train(DType::F32);
}

#[test]
fn a_fast_step_is_one_launch_in_bf16() {
    train(DType::Bf16);
}
