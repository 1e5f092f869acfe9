//! A fast step allocates nothing, after the first step has grown what grows once.

use crate::{ALLOCATIONS, TURN};
use engine::Device;
use ltm::train::Trainer;
use std::sync::atomic::Ordering;
use tests::{batch, tiny};

#[test]
fn fast_steps_after_the_first_allocate_nothing() {
    let _turn = TURN.write().unwrap();
    let config = tiny("model.dim=64 model.seq=64 fast.steps=12 train.batch=2");
    let batch = batch(2, config.model.seq, 0);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut trainer = Trainer::new(config.clone(), &Device::Cpu).unwrap();
            trainer.train(&batch).unwrap();
            let mut counts = Vec::with_capacity(64);
            let mut news = Vec::with_capacity(20);
            // A thread's scratch memory grows when it first runs a larger piece, and on a busy machine a thread may get none
            // for a while. A step that allocates by itself does so in every fit.
            while news.last() != Some(&0) && news.len() < news.capacity() {
                counts.clear();
                trainer.fit(&batch, |_, _| counts.push(ALLOCATIONS.load(Ordering::Relaxed))).unwrap();
                news.push(counts[counts.len() - 1] - counts[0]);
            }
            let steps = counts.len() - 1;
            let fits = "allocations in fits";
            assert_eq!(news.last(), Some(&0), "{news:?} {fits} of {steps} fast steps on {threads} threads");
        });
    }
}
