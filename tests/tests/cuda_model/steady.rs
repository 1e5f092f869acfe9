//! What a GPU is asked for once training is under way: no memory, and within a batch's fast steps no transfer between host and
//! device; every fast step is one launch of the recording.

use kernels::registry::modules;
use ltm::train::Trainer;
use tests::shim::{Counts, Shim, loaded};

#[test]
fn a_fast_step_is_one_launch() {
    for precision in ["f32", "bf16"] {
        let (device, counts) = Shim::counted();
        let config = crate::config(&format!("fast.steps=6 train.precision={precision}"));
        let mut trainer = Trainer::new(config, &loaded(device, &modules())).expect("a trainer");
        for round in 0..3 {
            let before = counts();
            let batch = tests::batch(2, 13, round);
            let mut behind: Vec<Counts> = Vec::new();
            trainer.fit(&batch, |_, _| behind.push(counts())).expect("a batch that fits");
            assert_eq!(behind.len(), 6);
            for (t, (before, after)) in behind.iter().zip(&behind[1..]).enumerate() {
                let place = format!("{precision}, batch {round}, fast step {}", t + 1);
                let quiet = (after.memory, after.transfers) == (before.memory, before.transfers);
                assert!(quiet, "{place}: nothing is allocated, sent or fetched");
                // The first batch's first steps are run and recorded.
                if round > 0 || t > 1 {
                    let (work, replays) = (after.work - before.work, after.replays - before.replays);
                    assert_eq!((work, replays), (0, 1), "{place}: one launch of the recording");
                }
            }
            trainer.train(&batch).expect("a step");
            assert!(round == 0 || counts().memory == before.memory, "{precision}: no memory after the first batch");
        }
    }
}
