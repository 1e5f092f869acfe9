use super::PER_BLOCK;
use crate::lanes::{CHUNK, load, store_wanted};
use engine::rng::Stream;
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Want, parallel};

/// Blocks of random words that are drawn side by side: their 64-bit words fit into half of the registers of AVX2.
const BLOCKS: usize = 8;
/// The elements that they serve.
const GROUP: usize = BLOCKS * PER_BLOCK;

pub fn apply<T: Real>(stream: Stream, dropped: u16, scale: f64, want: Want, x: &[T], y: &mut [T]) {
    let scale = T::from_f64(scale);
    parallel::chunks(y, CHUNK, |c, y| {
        simd::dispatch(Masked { stream, dropped, scale, want, first: c * CHUNK, x: &x[c * CHUNK..], y });
    });
}

struct Masked<'a, T> {
    stream: Stream,
    dropped: u16,
    scale: T,
    want: Want,
    /// The number of the first element in the tensor.
    first: usize,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Real> Kernel for Masked<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        const { assert!(CHUNK.is_multiple_of(GROUP)) };
        for start in (0..self.y.len()).step_by(GROUP) {
            let words = self.stream.words_each::<BLOCKS>(((self.first + start) / PER_BLOCK) as u32);
            let mut pairs = [0; 2 * BLOCKS];
            for block in 0..BLOCKS {
                for pair in 0..2 {
                    let [low, high] = [words[2 * pair][block], words[2 * pair + 1][block]].map(u64::from);
                    pairs[2 * block + pair] = (high << 32 | low).to_le();
                }
            }
            let halves: [u16; GROUP] = bytemuck::cast(pairs);
            let mut factors = [T::ZERO; GROUP];
            for i in 0..GROUP {
                factors[i] = if halves[i] >= self.dropped { self.scale } else { T::ZERO };
            }
            for i in (0..GROUP.min(self.y.len() - start)).step_by(LANES) {
                let product = load::<I, T>(self.x, start + i).mul(T::Lanes::<I>::load(&factors[i..]));
                store_wanted::<I, T>(self.want, product, self.y, start + i);
            }
        }
    }
}
