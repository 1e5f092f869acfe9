//! Files as they come: plain, or compressed by gzip or Zstandard, which their first bytes tell.

use engine::{Error, Result};
use std::io::{self, Cursor, Read};
use std::path::Path;

/// Where bytes come from.
pub type Input = Box<dyn Read + Send>;

/// First bytes of a gzip file (RFC 1952) and of a Zstandard frame (RFC 8878).
const GZIP: &[u8] = &[0x1F, 0x8B];
const ZSTD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];

/// First bytes of what is compressed otherwise and is no text. That of bzip2 is long, as a text may begin with its first
/// letters.
const OTHERS: [(&str, &[u8]); 3] = [("xz", b"\xFD7zXZ\0"), ("bzip2", b"BZh91AY&SY"), ("zip", b"PK\x03\x04")];

/// What `input` holds, decompressed if it is compressed; several compressed parts, one after the other, are one text.
///
/// # Errors
/// If its first bytes cannot be read, or it is compressed in another way.
pub(super) fn plain(file: &Path, mut input: Input) -> Result<Input> {
    let fail = |error: io::Error| Error::io("read", file, &error);
    let mut first = Vec::new();
    input.by_ref().take(16).read_to_end(&mut first).map_err(fail)?;
    if let Some((name, _)) = OTHERS.iter().find(|(_, magic)| first.starts_with(magic)) {
        let file = file.display();
        return Err(Error::new(format!("{file} is compressed by {name}: gzip, Zstandard and plain files can be read")));
    }
    let (gzip, zstd) = (first.starts_with(GZIP), first.starts_with(ZSTD));
    let whole = Cursor::new(first).chain(input);
    Ok(if gzip {
        Box::new(Named { decoder: flate2::read::MultiGzDecoder::new(whole), name: "gzip" })
    } else if zstd {
        Box::new(Named { decoder: zstd::stream::read::Decoder::new(whole).map_err(fail)?, name: "Zstandard" })
    } else {
        Box::new(whole)
    })
}

/// Says that compressed data are damaged, where the decoder's own words do not.
struct Named<R> {
    decoder: R,
    name: &'static str,
}

impl<R: Read> Read for Named<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(out).map_err(|error| match error.raw_os_error() {
            Some(_) => error,
            None => io::Error::new(error.kind(), format!("its {} data are damaged or cut off: {error}", self.name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::packed::{gzip, zstd};

    fn read(bytes: Vec<u8>) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut input = plain(Path::new("f"), Box::new(Cursor::new(bytes)))?;
        input.read_to_end(&mut out).map(|_| out).map_err(|error| Error::new(error.to_string()))
    }

    #[test]
    fn whatever_it_is_comes_out_plain() {
        let text = b"one line\nand another\n".repeat(1000);
        let (front, back) = text.split_at(777);
        let parts = [[gzip(front), gzip(back)].concat(), [zstd(front), zstd(back)].concat()];
        for packed in [text.clone(), gzip(&text), zstd(&text)].into_iter().chain(parts) {
            assert!(read(packed).unwrap() == text);
        }
        for short in [&b""[..], b"a", &GZIP[..1], &ZSTD[..3], b"BZh is how it begins"] {
            assert_eq!(read(short.to_vec()).unwrap(), short);
        }
    }

    #[test]
    fn what_cannot_be_unpacked_is_an_error() {
        let text = b"one line\nand another\n".repeat(1000);
        let mut changed = gzip(&text);
        let checksum = changed.len() - 5;
        changed[checksum] ^= 1;
        let cut = |packed: Vec<u8>, len: usize| packed[..len].to_vec();
        for (packed, message) in [
            (cut(gzip(&text), gzip(&text).len() - 1), "its gzip data are damaged or cut off: "),
            (cut(gzip(&text), gzip(&text).len() / 2), "its gzip data are damaged or cut off: "),
            (changed, "its gzip data are damaged or cut off: "),
            (cut(zstd(&text), zstd(&text).len() - 1), "its Zstandard data are damaged or cut off: "),
            (b"\xFD7zXZ\0..".to_vec(), "f is compressed by xz: gzip, Zstandard and plain files can be read"),
            (b"BZh91AY&SY..".to_vec(), "f is compressed by bzip2: gzip, Zstandard and plain files can be read"),
        ] {
            let error = read(packed).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
