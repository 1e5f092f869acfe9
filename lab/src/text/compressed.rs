//! Files as they come: plain, or compressed by gzip or Zstandard, told apart by their first bytes. A name that promises a
//! compressed file where there is none is an error, and so are the archives of other programs: their bytes are no text.

use super::documents::Bytes;
use engine::{Error, Result};
use std::io::{Cursor, Read};
use std::path::Path;

/// First bytes of a gzip file (RFC 1952) and of a Zstandard frame (RFC 8878).
const GZIP: &[u8] = &[0x1F, 0x8B];
const ZSTD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];

/// First bytes of what is compressed otherwise. That of bzip2 is long, as a text may well begin with its first letters.
const OTHERS: &[(&str, &[u8])] = &[
    ("xz", b"\xFD7zXZ\0"),
    ("bzip2", b"BZh91AY&SY"),
    ("zip", b"PK\x03\x04"),
    ("7-Zip", b"7z\xBC\xAF\x27\x1C"),
    ("LZ4", b"\x04\x22\x4D\x18"),
];

/// Endings of names that promise a compressed file.
const ENDINGS: &[&str] = &["gz", "gzip", "zst", "zstd", "xz", "bz2", "zip", "7z", "lz4"];

/// Bytes that are looked at.
const LOOK: u64 = 512;

/// What `input` holds, decompressed if it is compressed; several compressed parts, one behind the other, are one text.
///
/// # Errors
/// If its first bytes cannot be read, are compressed in a way that this build cannot undo, or are not what its name promises.
pub(super) fn plain(file: &Path, mut input: Bytes) -> Result<Bytes> {
    let mut first = Vec::new();
    Read::take(&mut input, LOOK).read_to_end(&mut first).map_err(|error| Error::io("read", file, &error))?;
    let (gzip, zstd) = (first.starts_with(GZIP), first.starts_with(ZSTD));
    if !gzip && !zstd {
        check(file, &first)?;
    }
    let whole: Bytes = Box::new(Cursor::new(first).chain(input));
    match (gzip, zstd) {
        (true, _) => decoders::gzip(file, whole),
        (_, true) => decoders::zstd(file, whole),
        _ => Ok(whole),
    }
}

/// That a file which is neither gzip nor Zstandard is not compressed at all, and not called so.
fn check(file: &Path, first: &[u8]) -> Result<()> {
    let remedy = "gzip, Zstandard and plain files can be read";
    if let Some((name, _)) = OTHERS.iter().find(|(_, magic)| first.starts_with(magic)) {
        return Err(Error::new(format!("{} is compressed by {name}: {remedy}", file.display())));
    }
    let ending = file.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    let Some(ending) = ending.filter(|ending| ENDINGS.contains(&ending.as_str())) else { return Ok(()) };
    // A character may be cut off where the look ends.
    let text = match std::str::from_utf8(first) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && first.len() as u64 == LOOK,
    };
    let seems = match first {
        [] => "is empty",
        _ if text && !first.contains(&0) => "holds plain text",
        _ => "holds neither gzip nor Zstandard",
    };
    let remedy = if seems == "holds plain text" { "rename it if that is meant" } else { remedy };
    Err(Error::new(format!("{} is named .{ending}, but {seems}: {remedy}", file.display())))
}

mod decoders {
    use super::*;
    use std::io;

    pub(super) fn gzip(_: &Path, input: Bytes) -> Result<Bytes> {
        Ok(Box::new(Located { decoder: flate2::read::MultiGzDecoder::new(input), name: "gzip", lines: 0 }))
    }

    pub(super) fn zstd(file: &Path, input: Bytes) -> Result<Bytes> {
        let decoder = zstd::stream::read::Decoder::new(input).map_err(|error| Error::io("read", file, &error))?;
        Ok(Box::new(Located { decoder, name: "Zstandard", lines: 0 }))
    }

    /// Says how far a damaged file could be read; a wrong checksum shows at the end.
    struct Located<R> {
        decoder: R,
        name: &'static str,
        /// Line ends so far.
        lines: usize,
    }

    impl<R: Read> Read for Located<R> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.decoder.read(out) {
                Ok(n) => {
                    self.lines += out[..n].iter().filter(|&&byte| byte == b'\n').count();
                    Ok(n)
                }
                // What the system says is none of the data's fault.
                Err(error) if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::Interrupted => {
                    Err(error)
                }
                Err(error) => {
                    let (name, lines) = (self.name, self.lines);
                    Err(io::Error::new(
                        error.kind(),
                        format!("its {name} data are damaged or cut off, which shows behind line {lines}: {error}"),
                    ))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};

    fn read(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut input = plain(Path::new("f"), Box::new(Cursor::new(bytes))).unwrap();
        input.read_to_end(&mut out).map(|_| out)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn whatever_it_is_comes_out_plain() {
        let text = b"one line\nand another\n".repeat(1000);
        let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        let (front, back) = text.split_at(777);
        for packed in [
            text.clone(),
            gzip(&text),
            zstd(&text),
            [gzip(front), gzip(back)].concat(),
            [zstd(front), zstd(back)].concat(),
        ] {
            assert!(read(packed).unwrap() == text);
        }
        for short in [&b""[..], b"a", &GZIP[..1], &ZSTD[..3], b"BZh is how it begins"] {
            assert_eq!(read(short.to_vec()).unwrap(), short);
        }
    }

    #[test]
    fn names_promise_what_is_there() {
        let open = |name: &str, bytes: &[u8]| plain(Path::new(name), Box::new(Cursor::new(bytes.to_vec()))).map(|_| ());
        let long = [&b"x"[..], "é".repeat(400).as_bytes()].concat();
        for (name, bytes, message) in [
            ("f.gz", &b"some text"[..], "f.gz is named .gz, but holds plain text: rename it if that is meant"),
            ("f.ZST", &long, "f.ZST is named .zst, but holds plain text: rename it if that is meant"),
            ("f.gz", b"", "f.gz is named .gz, but is empty: gzip, Zstandard and plain files can be read"),
            (
                "f.gz",
                b"\x00\x01",
                "f.gz is named .gz, but holds neither gzip nor Zstandard: gzip, Zstandard and plain files can be read",
            ),
            ("f.gz", b"\xFD7zXZ\0..", "f.gz is compressed by xz: gzip, Zstandard and plain files can be read"),
            ("f.txt", b"BZh91AY&SY..", "f.txt is compressed by bzip2: gzip, Zstandard and plain files can be read"),
        ] {
            assert_eq!(open(name, bytes).unwrap_err().to_string(), message);
        }
        let text = b"one line\n";
        assert!(open("f.gz", &zstd::encode_all(&text[..], 1).unwrap()).is_ok(), "which of the two does not matter");
        assert!(open("f.txt", &gzip(text)).is_ok() && open("f.text", text).is_ok());
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_an_error() {
        let text = b"one line\nand another\n".repeat(1000);
        for packed in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            let said = read(packed[..packed.len() - 1].to_vec()).unwrap_err().to_string();
            assert!(said.contains("damaged or cut off, which shows behind line "), "{said}");
            assert!(read(packed[..packed.len() / 2].to_vec()).is_err());
        }
        let mut packed = gzip(&text);
        let last = packed.len() - 5;
        packed[last] ^= 1;
        let said = read(packed).unwrap_err().to_string();
        assert!(
            said.contains("its gzip data are damaged or cut off, which shows behind line 2000: "),
            "a wrong checksum: {said}"
        );
    }
}
