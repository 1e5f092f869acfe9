//! Damages input for tests of the parsers: small, seeded changes to a valid input. For a million inputs per parser:
//! `LTM_FUZZ_CASES=1000000 cargo test --release damaged`.

use engine::rng::Stream;

/// Number of damaged inputs per test: `LTM_FUZZ_CASES` if set (for long runs), else `usual`.
pub fn cases(usual: u32) -> u32 {
    match std::env::var("LTM_FUZZ_CASES") {
        Ok(n) => n.parse().unwrap_or_else(|e| panic!("LTM_FUZZ_CASES={n}: {e}")),
        Err(_) => usual,
    }
}

/// Calls `accepts` with damaged versions of `input` and their numbers; it returns whether its parser accepted.
///
/// # Panics
/// If almost none is accepted: then the damage is too coarse to test more than the start of the parser.
pub fn try_damaged(input: &[u8], usual: u32, mut accepts: impl FnMut(u32, Vec<u8>) -> bool) {
    let accepted = (0..cases(usual)).filter(|&case| accepts(case, damage(input, case))).count();
    assert!(accepted > 50, "only {accepted} damaged inputs got past the reader");
}

/// One to four changes of `input`, which depend only on `case`: bits, bytes or digits changed, parts removed, repeated,
/// or cut off at the end.
pub fn damage(input: &[u8], case: u32) -> Vec<u8> {
    let stream = Stream::new(0xDA_4A6E, 0).sample(case);
    let mut bytes = input.to_vec();
    for change in 0..=stream.below(0, 4) as u32 {
        let pick = |index: u32, n: usize| stream.below(1 + change * 8 + index, n);
        if bytes.is_empty() {
            return bytes;
        }
        let at = pick(0, bytes.len());
        let span = (1 + pick(1, 16)).min(bytes.len() - at);
        match pick(2, 8) {
            0 => bytes[at] ^= 1 << pick(3, 8),
            1 => bytes[at] = pick(3, 256) as u8,
            2 => {
                // Lengths and offsets are numbers, so change the next digit directly.
                if let Some(digit) = bytes[at..].iter_mut().find(|b| b.is_ascii_digit()) {
                    *digit = b'0' + pick(3, 10) as u8;
                }
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..at + span)),
            5 => {
                let part = bytes[at..at + span].to_vec();
                bytes.splice(at..at, part);
            }
            6 => {
                let other = pick(3, bytes.len() - span + 1);
                bytes.copy_within(at..at + span, other);
            }
            _ => {
                let structural = b"{}[]\",:\\-.e09 \xff\0";
                bytes.insert(at, structural[pick(3, structural.len())]);
            }
        }
    }
    bytes
}
