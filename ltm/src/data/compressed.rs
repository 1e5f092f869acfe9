//! Files as they come: plain, or compressed by gzip or Zstandard, told apart by their first bytes and not by their names.

use super::documents::Bytes;
use engine::Result;
use std::io::{Cursor, Read};
use std::path::Path;

/// First bytes of a gzip file (RFC 1952) and of a Zstandard frame (RFC 8878).
const GZIP: &[u8] = &[0x1F, 0x8B];
const ZSTD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];

/// What `input` holds, decompressed if it is compressed; several compressed parts, one behind the other, are one text.
///
/// # Errors
/// If its first bytes cannot be read, or it is compressed and this build cannot decompress.
pub(super) fn plain(file: &Path, mut input: Bytes) -> Result<Bytes> {
    let mut first = Vec::new();
    Read::take(&mut input, ZSTD.len() as u64)
        .read_to_end(&mut first)
        .map_err(|error| engine::Error::io("read", file, &error))?;
    let (gzip, zstd) = (first.starts_with(GZIP), first.starts_with(ZSTD));
    let whole: Bytes = Box::new(Cursor::new(first).chain(input));
    match (gzip, zstd) {
        (true, _) => decoders::gzip(file, whole),
        (_, true) => decoders::zstd(file, whole),
        _ => Ok(whole),
    }
}

#[cfg(feature = "cli")]
mod decoders {
    use super::*;
    use engine::Error;

    pub(super) fn gzip(_: &Path, input: Bytes) -> Result<Bytes> {
        Ok(Box::new(flate2::read::MultiGzDecoder::new(input)))
    }

    pub(super) fn zstd(file: &Path, input: Bytes) -> Result<Bytes> {
        let decoder = zstd::stream::read::Decoder::new(input).map_err(|error| Error::io("read", file, &error))?;
        Ok(Box::new(decoder))
    }
}

#[cfg(not(feature = "cli"))]
mod decoders {
    use super::*;
    use engine::Error;

    pub(super) fn gzip(file: &Path, _: Bytes) -> Result<Bytes> {
        Err(Error::usage(format!("{} is compressed: build the library with feature `cli` to read it", file.display())))
    }

    pub(super) use gzip as zstd;
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: Vec<u8>) -> std::io::Result<Vec<u8>> {
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
        for short in [&b""[..], b"a", &GZIP[..1], &ZSTD[..3]] {
            assert_eq!(read(short.to_vec()).unwrap(), short);
        }
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_an_error() {
        let text = b"one line\nand another\n".repeat(1000);
        for packed in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            assert!(read(packed[..packed.len() - 1].to_vec()).is_err());
            assert!(read(packed[..packed.len() / 2].to_vec()).is_err());
        }
        let mut packed = gzip(&text);
        let last = packed.len() - 5;
        packed[last] ^= 1;
        assert!(read(packed).is_err(), "a wrong checksum");
    }
}
