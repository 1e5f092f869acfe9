//! The file of compiled kernels: what was compiled, from which text, for which GPU, and the code.
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
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

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

/// 128-bit FNV-1a: tells versions of a text apart and notices damage; no protection against intent.
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

    /// With its length, so that two texts do not run into each other.
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

/// The entries of a file with these contents.
///
/// # Errors
/// If they are anything but what [`encode`] made.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Entry>> {
    let error = |what: &str| Error::new(format!("{what}: make it anew, by ltm cuda compile"));
    if !bytes.starts_with(MAGIC) {
        return Err(error(if bytes.starts_with(&MAGIC[..7]) {
            "a file of compiled kernels of another version of this program"
        } else {
            "not a file of compiled kernels"
        }));
    }
    let damaged = || error("a damaged file of compiled kernels");
    let (content, check) = bytes.split_last_chunk::<16>().ok_or_else(damaged)?;
    if Hash::default().bytes(content).value() != u128::from_le_bytes(*check) {
        return Err(damaged());
    }
    read(Reader(&content[MAGIC.len()..])).ok_or_else(damaged)
}

fn read(mut reader: Reader) -> Option<Vec<Entry>> {
    let mut labels = Vec::new();
    for _ in 0..reader.u32()? {
        let (name, defines) = (reader.text()?, reader.text()?);
        let arch = Arch::new(reader.u32()?, reader.u32()?);
        let fingerprint = u128::from_le_bytes(reader.array()?);
        let bytes = usize::try_from(u64::from_le_bytes(reader.array()?)).ok()?;
        labels.push((Label { name, defines, arch, fingerprint }, bytes));
    }
    let mut entries = Vec::new();
    for (label, bytes) in labels {
        // The driver would read beyond code that is empty.
        let code = reader.take(bytes).filter(|code| !code.is_empty())?;
        entries.push(Entry { label, code: code.to_vec() });
    }
    reader.0.is_empty().then_some(entries)
}

/// Puts a file at its place all at once; through a link, to where that leads.
///
/// # Errors
/// If it cannot be written, or what is there is no regular file, whose place it would take.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let path = &place_of(path)?;
    let own = beside(path);
    let done = fs::write(&own, bytes).and_then(|()| fs::rename(&own, path));
    done.map_err(|e| {
        // What is half written must not stay; that it cannot be removed would only hide the first reason.
        let _ = fs::remove_file(&own);
        Error::io("write", path, &e)
    })
}

/// Whether [`write`] could put a file there.
///
/// # Errors
/// If it could not.
pub(crate) fn check_place(path: &Path) -> Result<()> {
    let path = &place_of(path)?;
    let own = beside(path);
    fs::write(&own, b"").and_then(|()| fs::remove_file(&own)).map_err(|e| Error::io("write", path, &e))
}

/// Where a path leads.
fn place_of(path: &Path) -> Result<PathBuf> {
    let wrong = |what: &str| Err(Error::new(format!("cannot write {}: it is {what}", path.display())));
    match (fs::metadata(path), fs::symlink_metadata(path)) {
        (Ok(there), _) if !there.is_file() => wrong("no regular file"),
        (Err(_), Ok(link)) if link.is_symlink() => wrong("a link that leads nowhere"),
        _ => Ok(fs::canonicalize(path).unwrap_or_else(|_| path.into())),
    }
}

/// A name of this process's own in the same folder.
fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    static MODULE: Module = Module::new("m", "extern \"C\" __global__ void one(int n) {}");

    fn entries() -> Vec<Entry> {
        let label = |dtype, arch| Label::new(&MODULE, Variant { dtype, size: 0 }, arch);
        vec![
            Entry { label: label(DType::F32, Arch::OLDEST), code: vec![1, 2, 3] },
            Entry { label: label(DType::Bf16, Arch::OLDEST), code: vec![7] },
            Entry { label: label(DType::F32, Arch::new(9, 0)), code: (0..=255).collect() },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode(&encode(&entries())).expect("a file"), entries());
        assert_eq!(decode(&encode(&[])).expect("an empty file"), []);
    }

    #[test]
    fn every_damage_is_noticed() {
        let good = encode(&entries());
        for n in 0..good.len() {
            assert!(decode(&good[..n]).is_err(), "cut to {n} bytes");
            let mut bad = good.clone();
            bad[n] ^= 0x20;
            assert!(decode(&bad).is_err(), "byte {n}");
        }
        // As a compiler leaves it for which the disk is full.
        let mut hollow = entries();
        hollow[0].code.clear();
        assert!(decode(&encode(&hollow)).is_err());
        let text = |bytes: &[u8]| decode(bytes).expect_err("not a file").to_string();
        assert_eq!(text(b"hello"), "not a file of compiled kernels: make it anew, by ltm cuda compile");
        assert_eq!(
            text(&[b"kernels\x02", &good[8..]].concat()),
            "a file of compiled kernels of another version of this program: make it anew, by ltm cuda compile"
        );
        // Lengths that lie under a right check.
        let forged = |content: Vec<u8>| [&content[..], &Hash::default().bytes(&content).value().to_le_bytes()].concat();
        let content = &good[..good.len() - 16];
        assert!(decode(&forged(content.to_vec())).is_ok());
        assert!(decode(&forged([content, &[0]].concat())).is_err(), "bytes behind the end");
        assert!(decode(&forged([MAGIC, &[0xff; 4][..]].concat())).is_err(), "more entries than there are");
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

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing() {
        let folder = std::env::temp_dir().join(format!("kernels-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        write(&folder.join("a"), b"1").expect("a file");
        write(&folder.join("a"), b"2").expect("a file");
        assert_eq!(fs::read(folder.join("a")).expect("a file"), b"2");
        fs::create_dir(folder.join("b")).expect("a folder");
        assert!(write(&folder.join("b"), b"3").is_err());
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 2);
        fs::remove_dir_all(&folder).expect("a folder of this test");
    }
}
