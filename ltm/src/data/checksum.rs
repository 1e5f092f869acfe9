//! A 64-bit checksum of token files that runs at the speed of memory.
//!
//! Every token of a data set is looked at once when it is opened (a flipped bit found now is better than one found after
//! three days), so the checksum must cost less than the disk; a cryptographic hash would not. It is meant against
//! accidents, not against somebody who forges data: any change confined to one aligned 8-byte word is found with
//! certainty, because each step below is a bijection of the state and of the word; any other with probability 1 − 2⁻⁶⁴.
//!
//! Bytes are taken in chunks of [`CHUNK`], which can be summed in parallel; the chunks' sums are then summed in order.

use rayon::prelude::*;

/// Bytes per chunk.
pub const CHUNK: usize = 1 << 20;

const PRIME: u64 = 0x9E37_79B1_85EB_CA87;
const LANES: [u64; 4] = [0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344, 0xA409_3822_299F_31D0, 0x082E_FA98_EC4E_6C89];

/// A bijection of `state` for each `word` and of `word` for each `state`.
fn step(state: u64, word: u64) -> u64 {
    (state ^ word).wrapping_mul(PRIME).rotate_left(29)
}

/// The sum of one chunk: four independent lanes of little-endian words, so that the multiplier's latency is hidden.
pub(super) fn chunk_sum(bytes: &[u8]) -> u64 {
    let mut lanes = LANES;
    let mut absorb = |block: &[u8; 32]| {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    };
    let (blocks, rest) = bytes.as_chunks::<32>();
    blocks.iter().for_each(&mut absorb);
    if !rest.is_empty() {
        let mut last = [0; 32];
        last[..rest.len()].copy_from_slice(rest);
        absorb(&last);
    }
    lanes.iter().fold(bytes.len() as u64, |state, &lane| step(state, lane))
}

/// The running sum over chunks.
#[derive(Clone, Copy, Debug, Default)]
struct Sums(u64);

impl Sums {
    fn push(&mut self, chunk: u64) {
        self.0 = step(self.0, chunk);
    }

    /// Spreads the last words over all bits; a bijection.
    fn finish(self) -> u64 {
        let x = (self.0 ^ (self.0 >> 32)).wrapping_mul(PRIME);
        x ^ (x >> 29)
    }
}

/// The checksum of `bytes`, on all threads.
pub fn checksum(bytes: &[u8]) -> u64 {
    let sums: Vec<u64> = bytes.par_chunks(CHUNK).map(chunk_sum).collect();
    combine(sums)
}

/// One sum over several, in order: of the chunks of a file, or of the files of a data set.
pub fn combine(sums: impl IntoIterator<Item = u64>) -> u64 {
    let mut all = Sums::default();
    sums.into_iter().for_each(|sum| all.push(sum));
    all.finish()
}

/// The same checksum of bytes that come piece by piece.
#[derive(Debug, Default)]
pub struct Running {
    chunk: Vec<u8>,
    sums: Sums,
}

impl Running {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK {
                self.sums.push(chunk_sum(&self.chunk));
                self.chunk.clear();
            }
        }
    }

    /// The checksum of all bytes taken.
    pub fn finish(mut self) -> u64 {
        if !self.chunk.is_empty() {
            self.sums.push(chunk_sum(&self.chunk));
        }
        self.sums.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::rng::Stream;

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u32)
            .map(|i| Stream::new(3, 0).words(i / 16)[i as usize / 4 % 4].to_le_bytes()[i as usize % 4])
            .collect()
    }

    #[test]
    fn piecewise_equals_parallel() {
        let bytes = noise(3 * CHUNK + 77);
        for len in [0, 1, 31, 32, 33, CHUNK - 1, CHUNK, CHUNK + 1, bytes.len()] {
            for piece in [1000, CHUNK - 3, CHUNK, 5 * CHUNK] {
                let mut running = Running::default();
                bytes[..len].chunks(piece).for_each(|piece| running.update(piece));
                assert_eq!(running.finish(), checksum(&bytes[..len]), "{len} bytes by {piece}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_lost_byte_shows() {
        let mut bytes = noise(200);
        let good = checksum(&bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(checksum(&bytes), good, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        (0..bytes.len()).for_each(|len| assert_ne!(checksum(&bytes[..len]), good));
        assert_ne!(checksum(&[0; 8]), checksum(&[0; 16]));
        bytes.push(0);
        assert_ne!(checksum(&bytes), good);
    }
}
