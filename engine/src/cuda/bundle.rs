//! The format of a file of compiled kernels.
//!
//! ```text
//! magic        8 bytes   "kernels\x01"
//! entries      u32       number of entries, little-endian as all numbers
//! an entry     u8 + text the module's name
//!              u8 + text its definitions, e.g. "STORAGE=bf16 SIZE=64"
//!              u32 + u32 compute capability
//!              u128      fingerprint of the module's text, the headers and the compiler's options
//!              u64       bytes of code
//! … all entries, then the code of each in the same order …
//! check        u128      fingerprint of everything before it
//! ```

use super::arch::Arch;
use super::compile::{OF_NVCC, OF_NVRTC, OPTIONS};
use super::{HEADERS, Module, Variant};
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"kernels\x01";

/// What the code of one module is compiled from and for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub name: String,
    pub defines: String,
    pub arch: Arch,
    pub fingerprint: u128,
}

impl Label {
    pub fn new(module: &Module, variant: Variant, arch: Arch) -> Self {
        let defines = variant.defines().join(" ");
        let mut hash = Hash::default();
        hash.text(module.source).text(&defines);
        let options = OPTIONS.iter().chain(&OF_NVRTC).chain(&OF_NVCC);
        for text in HEADERS.iter().flat_map(|(name, text)| [name, text]).chain(options) {
            hash.text(text);
        }
        Self { name: module.name.into(), defines, arch, fingerprint: hash.value() }
    }
}

/// A label and the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub label: Label,
    pub code: Vec<u8>,
}

/// 128-bit FNV-1a. It tells versions of a text apart and notices damage, but does not protect against intent.
pub(crate) struct Hash(u128);

impl Default for Hash {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Hash {
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        self
    }

    /// The text with its length, so that the border between two texts counts.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(&(text.len() as u64).to_le_bytes()).bytes(text.as_bytes())
    }

    pub fn value(&self) -> u128 {
        self.0
    }
}

/// The contents of a file with these entries.
pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend((entries.len() as u32).to_le_bytes());
    for Entry { label, code } in entries {
        for text in [&label.name, &label.defines] {
            out.push(u8::try_from(text.len()).expect("names of modules are short"));
            out.extend(text.as_bytes());
        }
        out.extend(label.arch.capability().into_iter().flat_map(u32::to_le_bytes));
        out.extend(label.fingerprint.to_le_bytes());
        out.extend((code.len() as u64).to_le_bytes());
    }
    entries.iter().for_each(|entry| out.extend(&entry.code));
    let check = Hash::default().bytes(&out).value();
    out.extend(check.to_le_bytes());
    out
}

/// The entries of a file with these contents.
///
/// # Errors
/// If they are not what this version of [`encode`] made.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Entry>> {
    if bytes.starts_with(&MAGIC[..7]) && !bytes.starts_with(MAGIC) {
        return Err(Error::kernels("a file of compiled kernels of another version of this program"));
    }
    read(bytes).ok_or_else(|| Error::kernels("not a file of compiled kernels, or a damaged one"))
}

fn read(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (content, check) = bytes.split_last_chunk::<16>()?;
    if Hash::default().bytes(content).value() != u128::from_le_bytes(*check) {
        return None;
    }
    let mut reader = Reader(content.strip_prefix(MAGIC)?);
    let mut labels = Vec::new();
    for _ in 0..reader.u32()? {
        let (name, defines) = (reader.text()?, reader.text()?);
        let arch = Arch::new(reader.u32()?, reader.u32()?);
        let fingerprint = u128::from_le_bytes(reader.array()?);
        let bytes = usize::try_from(u64::from_le_bytes(reader.array()?)).ok()?;
        labels.push((Label { name, defines, arch, fingerprint }, bytes));
    }
    let entry = |(label, bytes)| Some(Entry { label, code: reader.take(bytes)?.to_vec() });
    labels.into_iter().map(entry).collect()
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let [n] = self.array()?;
        String::from_utf8(self.take(n.into())?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, ErrorKind};

    static MODULE: Module = Module::new("m", "extern \"C\" __global__ void one(int n) {}");

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let label = |dtype, arch| Label::new(&MODULE, Variant { dtype, size: 0 }, arch);
        let entries = vec![
            Entry { label: label(DType::F32, Arch::OLDEST), code: vec![1, 2, 3] },
            Entry { label: label(DType::Bf16, Arch::OLDEST), code: vec![7] },
            Entry { label: label(DType::F32, Arch::new(9, 0)), code: (0..=255).collect() },
        ];
        let good = encode(&entries);
        assert_eq!(decode(&good).expect("a file"), entries);
        assert_eq!(decode(&encode(&[])).expect("an empty file"), []);
        let refused = |bytes: &[u8]| {
            let error = decode(bytes).expect_err("not a file");
            assert_eq!(error.kind(), ErrorKind::Kernels);
            error.to_string()
        };
        for bytes in [b"hello", &good[..0], &good[..good.len() / 2], &good[..good.len() - 1]] {
            assert_eq!(refused(bytes), "not a file of compiled kernels, or a damaged one");
        }
        let later = [b"kernels\x02", &good[8..]].concat();
        assert_eq!(refused(&later), "a file of compiled kernels of another version of this program");
    }

    #[test]
    fn the_fingerprint_follows_the_text() {
        static OTHER: Module = Module::new("m", "extern \"C\" __global__ void one(int m) {}");
        let of = |module, dtype| Label::new(module, Variant { dtype, size: 0 }, Arch::OLDEST).fingerprint;
        assert_ne!(of(&MODULE, DType::F32), of(&OTHER, DType::F32));
        assert_ne!(of(&MODULE, DType::F32), of(&MODULE, DType::Bf16));
        // The published value for "a".
        assert_eq!(Hash::default().bytes(b"a").value(), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
