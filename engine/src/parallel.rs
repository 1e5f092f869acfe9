//! Parallel loops whose results do not depend on the number of threads: one thread computes a chunk of the output, and
//! reductions across chunks follow their fixed order.

pub use rayon::join;
use rayon::prelude::*;
use std::cell::{Cell, RefCell};

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `f` so that the loops below and the products of `kernels` run on this thread only. Use it for work that is
/// already divided among the threads, so that the parts do not wait for each other.
///
/// ```
/// use engine::parallel;
/// let inside = parallel::alone(|| {
///     let mut threads = [None; 10];
///     parallel::chunks(&mut threads, 1, |_, thread| thread[0] = Some(std::thread::current().id()));
///     (parallel::threads(), threads.iter().all(|&id| id == Some(std::thread::current().id())))
/// });
/// assert_eq!(inside, (1, true));
/// assert_eq!(parallel::threads(), rayon::current_num_threads());
/// ```
pub fn alone<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _restore = Restore(ALONE.replace(true));
    f()
}

/// Number of threads that may share work here: 1 inside [`alone`], else all of the pool.
pub fn threads() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

/// Calls `f` on a thread of the pool, so that the loops inside start at once. On any other thread, each loop wakes a thread of the
/// pool and waits for it. Inside [`alone`], `f` stays on its thread.
pub fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if ALONE.get() || rayon::current_thread_index().is_some() { f() } else { rayon::scope(|_| f()) }
}

/// The least number of chunks per thread. With a single thread the loop runs on the caller's thread.
fn unsplit() -> usize {
    if threads() == 1 { usize::MAX } else { 1 }
}

/// Calls `f(chunk_index, chunk)` in parallel for consecutive chunks of `size` elements of `out`. The last may be shorter.
///
/// ```
/// let mut squares = [0; 10];
/// engine::parallel::chunks(&mut squares, 4, |chunk, out| {
///     out.iter_mut().enumerate().for_each(|(i, x)| *x = (4 * chunk + i).pow(2));
/// });
/// assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
/// ```
pub fn chunks<T: Send>(out: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    out.par_chunks_mut(size).enumerate().with_min_len(unsplit()).for_each(|(i, chunk)| f(i, chunk));
}

/// Like [`chunks`], over two slices with the same number of chunks. An empty slice counts as having as many as the
/// other.
pub fn chunks2<A: Send, B: Send>(
    a: &mut [A],
    a_size: usize,
    b: &mut [B],
    b_size: usize,
    f: impl Fn(usize, &mut [A], &mut [B]) + Sync + Send,
) {
    if a.is_empty() {
        return chunks(b, b_size, |i, b| f(i, &mut [], b));
    }
    if b.is_empty() {
        return chunks(a, a_size, |i, a| f(i, a, &mut []));
    }
    assert_eq!(a.len().div_ceil(a_size), b.len().div_ceil(b_size), "number of chunks");
    let chunks = a.par_chunks_mut(a_size).zip(b.par_chunks_mut(b_size)).enumerate();
    chunks.with_min_len(unsplit()).for_each(|(i, (a, b))| f(i, a, b));
}

/// Like [`chunks`], over three slices with the same number of chunks; an empty slice counts as having as many as the
/// others.
pub fn chunks3<A: Send, B: Send, C: Send>(
    (a, a_size): (&mut [A], usize),
    (b, b_size): (&mut [B], usize),
    (c, c_size): (&mut [C], usize),
    f: impl Fn(usize, &mut [A], &mut [B], &mut [C]) + Sync + Send,
) {
    if a.is_empty() {
        return chunks2(b, b_size, c, c_size, |i, b, c| f(i, &mut [], b, c));
    }
    if b.is_empty() {
        return chunks2(a, a_size, c, c_size, |i, a, c| f(i, a, &mut [], c));
    }
    if c.is_empty() {
        return chunks2(a, a_size, b, b_size, |i, a, b| f(i, a, b, &mut []));
    }
    let n = a.len().div_ceil(a_size);
    assert!(n == b.len().div_ceil(b_size) && n == c.len().div_ceil(c_size), "number of chunks");
    let chunks = a.par_chunks_mut(a_size).zip(b.par_chunks_mut(b_size)).zip(c.par_chunks_mut(c_size)).enumerate();
    chunks.with_min_len(unsplit()).for_each(|(i, ((a, b), c))| f(i, a, b, c));
}

thread_local! {
    static SCRATCH: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

/// Lends `f` scratch memory of this thread: `len` elements with unspecified contents, allocated once and reused. `f` must not
/// start parallel work, because a stolen task could ask for the same memory.
///
/// # Panics
/// If `f` asks for scratch memory again.
pub fn scratch<T: bytemuck::Pod, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    SCRATCH.with_borrow_mut(|memory| {
        let words = (len * size_of::<T>()).div_ceil(8);
        // Eight spare words allow a start on a cache line.
        if memory.len() < words + 8 {
            memory.resize(words + 8, 0.0);
        }
        let start = memory.as_ptr().align_offset(64);
        f(&mut bytemuck::cast_slice_mut(&mut memory[start..start + words])[..len])
    })
}
