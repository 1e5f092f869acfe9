//! The format of a file of compiled kernels: for every variant of a module a line, followed by the code.
//!
//! ```text
//! kernels2 MODULE DEFINITIONS ARCHITECTURE FINGERPRINT CHECK BYTES
//! ```
//!
//! The definitions are joined by commas. FINGERPRINT is the hash of all inputs of the compilation, CHECK the hash of
//! the code, both in base 16.

use super::arch::Arch;
use super::compile::OPTIONS;
use super::{HEADERS, Module, Variant};

/// The start of every line, with the version of the format.
const MAGIC: &str = "kernels2";

/// The source and target of one module's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub name: String,
    pub defines: String,
    pub arch: Arch,
    pub fingerprint: u128,
}

impl Label {
    pub fn new(module: &Module, variant: Variant, arch: Arch) -> Self {
        let defines = variant.defines().join(",");
        let headers = HEADERS.iter().flat_map(|(name, text)| [*name, *text]);
        let texts: Vec<&str> = [module.source, &defines].into_iter().chain(headers).chain(OPTIONS).collect();
        // A zero byte separates the texts, so that the border between them affects the hash.
        let fingerprint = fingerprint(texts.join("\0").as_bytes());
        Self { name: module.name.into(), defines, arch, fingerprint }
    }
}

/// A label and the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub label: Label,
    pub code: Vec<u8>,
}

/// 128-bit FNV-1a. It distinguishes versions of a text and detects damage, but is not secure against forgery.
pub(crate) fn fingerprint(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, &byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// The contents of a file with these entries.
pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for Entry { label: Label { name, defines, arch, fingerprint: from }, code } in entries {
        let (check, bytes) = (fingerprint(code), code.len());
        out.extend(format!("{MAGIC} {name} {defines} {arch} {from:x} {check:x} {bytes}\n").bytes());
        out.extend(code);
    }
    out
}

/// The entries of a file with these contents, or `None` if it is damaged.
pub(crate) fn decode(mut file: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !file.is_empty() {
        let (line, rest) = file.split_at_checked(file.iter().position(|&byte| byte == b'\n')?)?;
        let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
        let [MAGIC, name, defines, arch, from, check, bytes] = words[..] else { return None };
        let hash = |word| u128::from_str_radix(word, 16).ok();
        let (code, rest) = rest[1..].split_at_checked(bytes.parse().ok()?)?;
        if hash(check)? != fingerprint(code) {
            return None;
        }
        let (arch, fingerprint) = (arch.parse().ok()?, hash(from)?);
        let label = Label { name: name.into(), defines: defines.into(), arch, fingerprint };
        entries.push(Entry { label, code: code.to_vec() });
        file = rest;
    }
    (!entries.is_empty()).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    static MODULE: Module = Module::new("m", "extern \"C\" __global__ void one(int n) {}");
    static OTHER: Module = Module::new("m", "extern \"C\" __global__ void one(int m) {}");

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let label = |module, dtype, arch| Label::new(module, Variant { dtype, size: 0 }, arch);
        let first = label(&MODULE, DType::F32, Arch::OLDEST);
        let entries = vec![
            Entry { label: first.clone(), code: vec![1, 2, 3] },
            Entry { label: label(&MODULE, DType::Bf16, Arch::OLDEST), code: vec![] },
            Entry { label: label(&MODULE, DType::F32, Arch::new(9, 0)), code: (0..=255).collect() },
        ];
        let good = encode(&entries);
        assert_eq!(decode(&good), Some(entries));
        let turned: Vec<u8> = good.iter().rev().copied().collect();
        let damaged = [&good[..good.len() - 1], b"?"].concat();
        for bytes in [b"hello", &good[..0], &good[..good.len() / 2], &good[..good.len() - 1], &turned, &damaged] {
            assert_eq!(decode(bytes), None);
        }
        for other in [label(&OTHER, DType::F32, Arch::OLDEST), label(&MODULE, DType::Bf16, Arch::OLDEST)] {
            assert_ne!(first.fingerprint, other.fingerprint);
        }
        // The published value for "a".
        assert_eq!(fingerprint(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
