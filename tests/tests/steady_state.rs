//! A fast step allocates nothing: counted by the allocator, after the first step has grown what grows once.

use engine::Device;
use ltm::config::Config;
use ltm::data::{Batch, SampleInfo};
use ltm::train::Trainer;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting has no effect on memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps dealloc's contract.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps realloc's contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn fast_steps_after_the_first_allocate_nothing() {
    let mut config = Config::preset("tiny").unwrap();
    for (key, value) in [("model.dim", "64"), ("model.seq", "64"), ("fast.steps", "12"), ("train.batch", "2")] {
        config.set(key, value).unwrap();
    }
    let config = config.resolved().unwrap();
    let n = config.model.seq;
    let mut batch = Batch::new(2, n);
    batch.samples[1].id = 1;
    batch.samples.iter_mut().for_each(|s| *s = SampleInfo { scored: n as u32, ..*s });
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
            assert_eq!(
                news.last(),
                Some(&0),
                "{news:?} allocations in fits of {steps} fast steps on {threads} threads"
            );
        });
    }
}
