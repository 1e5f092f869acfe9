//! A 64-bit checksum at memory speed, for weights and moments after every step, where a cryptographic hash would be too
//! slow.
//!
//! It detects accidents, not forgery. Any change within one aligned 8-byte word is always found, because each step
//! below is a bijection of the state and of the word; any other change is found with probability 1 − 2⁻⁶⁴.

use rayon::prelude::*;

/// Bytes are summed in chunks of this size, in parallel; the chunks' sums are then summed in order.
const CHUNK: usize = 1 << 20;

const PRIME: u64 = 0x9E37_79B1_85EB_CA87;
const LANES: [u64; 4] = [0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344, 0xA409_3822_299F_31D0, 0x082E_FA98_EC4E_6C89];

/// A bijection of `state` for each `word` and of `word` for each `state`.
fn step(state: u64, word: u64) -> u64 {
    (state ^ word).wrapping_mul(PRIME).rotate_left(29)
}

/// The sum of one chunk: four independent lanes of little-endian words, so that the multiplier's latency is hidden.
fn chunk_sum(bytes: &[u8]) -> u64 {
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

/// The checksum of `bytes`, on all threads.
pub fn checksum(bytes: &[u8]) -> u64 {
    let sums: Vec<u64> = bytes.par_chunks(CHUNK).map(chunk_sum).collect();
    combine(sums)
}

/// One sum over several, in order.
pub fn combine(sums: impl IntoIterator<Item = u64>) -> u64 {
    let state = sums.into_iter().fold(0, step);
    // Spreads the last words over all bits; a bijection.
    let x = (state ^ (state >> 32)).wrapping_mul(PRIME);
    x ^ (x >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::rng::Stream;

    #[test]
    fn every_flipped_bit_and_every_lost_byte_shows() {
        let words = (0..50).flat_map(|i| Stream::new(3, 0).words(i / 4)[i as usize % 4].to_le_bytes());
        let mut bytes: Vec<u8> = words.collect();
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
        let long: Vec<u8> = (0..CHUNK as u32 + 77).map(|i| (i * 7 + i / 11) as u8).collect();
        assert_eq!(checksum(&long), combine(long.chunks(CHUNK).map(chunk_sum)));
    }
}
