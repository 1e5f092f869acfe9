//! Counts allocations with the program's allocator.

mod parsers;

use engine::Device;
use ltm::train::Trainer;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tests::{batch, tiny};

/// Counts the allocations of the process and the bytes that each thread asks for.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    BYTES.with(|asked| asked.set(asked.get() + bytes));
}

// SAFETY: every call goes to the system's allocator unchanged; counting has no effect on memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps dealloc's contract.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps realloc's contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// All tests hold this lock; a test that counts allocations of the whole process holds it exclusively.
static TURN: RwLock<()> = RwLock::new(());

/// A fast step allocates nothing, after the first step has allocated what is reused.
#[test]
fn fast_steps_after_the_first_allocate_nothing() {
    let _turn = TURN.write().unwrap();
    let config = tiny("model.dim=64 model.seq=64 fast.steps=12 train.batch=2");
    let batch = batch(2, config.model.seq, 0);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut trainer = Trainer::new(config.clone(), &Device::CPU).unwrap();
            trainer.train(&batch).unwrap();
            let mut counts = Vec::with_capacity(64);
            let mut news = Vec::with_capacity(20);
            // A thread's scratch memory grows when it first runs a larger piece, and on a busy machine a thread may
            // first get such a piece later. A step that really allocates does so in every fit.
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
