//! Ways to move memory, on arrays beyond the caches and on arrays that fit into one of them.

use crate::caches::Level;
use crate::peak::burst;
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Buffer, DType, Spec};
use rayon::prelude::*;
use std::hint::black_box;
use std::sync::Mutex;

/// A way to move the memory of three arrays a, b and c.
#[derive(Clone, Copy)]
pub enum Way {
    /// Everything is read.
    Read,
    /// a ← b + s·c.
    Triad,
    /// a ← ½a + b and c ← ½c + b: everything written was read before, as in an optimiser's step, so no extra cache
    /// lines are fetched.
    Update,
}

/// All ways, with their names and the number of array reads and writes.
pub const WAYS: [(Way, &str, f64); 3] =
    [(Way::Read, "read", 3.0), (Way::Triad, "triad", 3.0), (Way::Update, "update in place", 5.0)];

/// A piece of the arrays.
struct Piece<'a>(Way, &'a mut [f32], &'a [f32], &'a mut [f32]);

type Numbers<I> = <f32 as Real>::Lanes<I>;

impl Kernel for Piece<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self) -> f32 {
        let Self(way, a, b, c) = self;
        let rows =
            a.as_chunks_mut::<LANES>().0.iter_mut().zip(b.as_chunks::<LANES>().0).zip(c.as_chunks_mut::<LANES>().0);
        let half = Numbers::<I>::splat(0.5);
        // Three sums, so that an addition need not wait for the one before.
        let mut sums = [Numbers::<I>::zero(); 3];
        for ((a, b), c) in rows {
            let (b, old_c) = (Numbers::<I>::load(b), Numbers::<I>::load(c));
            match way {
                Way::Read => {
                    sums[0] = sums[0].add(Numbers::<I>::load(a));
                    sums[1] = sums[1].add(b);
                    sums[2] = sums[2].add(old_c);
                }
                Way::Triad => old_c.mul_add(half, b).store(a),
                Way::Update => {
                    Numbers::<I>::load(a).mul_add(half, b).store(a);
                    old_c.mul_add(half, b).store(c);
                }
            }
        }
        sums[0].add(sums[1]).add(sums[2]).sum()
    }
}

/// A thread's share at a time: small enough to balance the load, much larger than any prefetch.
const PIECE: usize = 1 << 20;

/// Three arrays, each larger than the last-level cache.
pub struct Arrays([Vec<f32>; 3]);

impl Arrays {
    /// Arrays of this many bytes together.
    pub fn new(bytes: usize) -> Self {
        let len = (bytes / (3 * size_of::<f32>())).next_multiple_of(LANES);
        Self([1.0, 2.0, 3.0].map(|x| vec![x; len]))
    }

    /// Bytes of one array.
    pub fn bytes(&self) -> f64 {
        size_of_val(&self.0[0][..]) as f64
    }

    /// Moves all arrays, on all threads.
    pub fn pass(&mut self, way: Way) {
        let [a, b, c] = &mut self.0;
        let pieces = a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).zip(c.par_chunks_mut(PIECE));
        black_box(pieces.map(|((a, b), c)| simd::dispatch(Piece(way, a, b, c))).sum::<f32>());
    }

    /// Every thread touches each cache line of its share of one array, so that its own caches are replaced along with the
    /// shared one.
    pub fn walk(&self) {
        rayon::broadcast(|thread| {
            let share = self.0[0].len().div_ceil(thread.num_threads());
            let mine = self.0[0].chunks(share).nth(thread.index()).unwrap_or_default();
            black_box(mine.iter().step_by(64 / size_of::<f32>()).fold(0.0f32, |sum, x| sum + x));
        });
    }
}

/// Bytes that a thread moves in one measurement of a cache: a fraction of a millisecond in L1.
const MOVED: usize = 8 << 20;

/// Arrays of every thread that fit into one level of its caches.
pub struct Nest {
    threads: Vec<Mutex<Buffer>>,
    /// Numbers in one array.
    len: usize,
    /// Rounds over the arrays in one measurement.
    rounds: usize,
}

impl Nest {
    /// Arrays for a level of the caches.
    pub fn new(level: &Level) -> Self {
        let threads = rayon::current_num_threads();
        // Arrays at distances that are no multiple of a page: a processor takes a load for one that waits for an earlier
        // store if their addresses agree in the last twelve bits.
        const PAGE: usize = 1024;
        let len = match level.measured / (3 * threads * size_of::<f32>()) {
            large if large > 4 * PAGE => large / PAGE * PAGE + PAGE / 3 / LANES * LANES,
            small => (small / LANES * LANES).max(LANES),
        };
        let rounds = (MOVED / (3 * len * size_of::<f32>())).max(2);
        let arrays = || Mutex::new(Buffer::new(Spec::new(DType::F32, &[3 * len])));
        Self { threads: (0..threads).map(|_| arrays()).collect(), len, rounds }
    }

    /// Bytes and seconds, after a round that fills the cache.
    pub fn pass(&self, way: Way, touches: f64) -> [f64; 2] {
        self.run(way, 1);
        let [_, seconds] = self.run(way, self.rounds);
        let moved = touches * (self.len * size_of::<f32>() * self.rounds * self.threads.len()) as f64;
        [moved, seconds]
    }

    fn run(&self, way: Way, rounds: usize) -> [f64; 2] {
        burst(|thread| {
            let mut arrays = self.threads[thread].lock().expect("no thread panics here");
            let (a, rest) = arrays.as_mut_slice::<f32>().split_at_mut(self.len);
            let (b, c) = rest.split_at_mut(self.len);
            for _ in 0..rounds {
                black_box(simd::dispatch(Piece(way, a, b, c)));
            }
            0.0
        })
    }
}
