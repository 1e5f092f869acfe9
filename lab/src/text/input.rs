//! Opens files that are plain, or compressed by gzip or Zstandard (detected by their first bytes), with or without a
//! byte order mark.

use engine::{Error, Result, file};
use std::io::{self, Cursor, Read};
use std::path::Path;

/// A source of bytes.
pub type Input = Box<dyn Read + Send>;

/// First bytes of a gzip file (RFC 1952) and of a Zstandard frame (RFC 8878).
const GZIP: &[u8] = &[0x1F, 0x8B];
const ZSTD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];

/// Zstandard's largest window, as a power of two; `zstd --long=31` uses it.
const LONGEST_WINDOW: u32 = 31;

/// First bytes of common files that are not text, whatever their names. Those of bzip2 and Parquet are long, because a
/// text may begin with their first letters.
const OTHERS: [(&str, &[u8]); 6] = [
    ("compressed by xz", b"\xFD7zXZ\0"),
    ("compressed by bzip2", b"BZh91AY&SY"),
    ("a zip archive", b"PK\x03\x04"),
    ("a Parquet table", b"PAR1\x15"),
    ("a NumPy array", b"\x93NUMPY"),
    ("a PDF document", b"%PDF-"),
];

/// The text of `input`, decompressed if necessary; several compressed parts in a row are one text. A UTF-8 byte order
/// mark is dropped, so that no model trains on it; a file without one is read byte for byte.
///
/// # Errors
/// If its first bytes cannot be read, or if it is not text or is UTF-16.
pub(super) fn plain(path: &Path, input: Input) -> Result<Input> {
    let fail = |error: io::Error| Error::io("read", path, &error);
    let (first, whole) = start(input).map_err(fail)?;
    if let Some((what, _)) = OTHERS.iter().find(|(_, magic)| first.starts_with(magic)) {
        let path = path.display();
        return Err(Error::new(format!(
            "{path} is {what}, but must be plain text, possibly compressed by gzip or Zstandard"
        )));
    }
    let text: Input = if first.starts_with(GZIP) {
        Box::new(Unpacked(flate2::read::MultiGzDecoder::new(whole), "gzip"))
    } else if first.starts_with(ZSTD) {
        let mut decoder = zstd::stream::read::Decoder::new(whole).map_err(fail)?;
        decoder.window_log_max(LONGEST_WINDOW).map_err(fail)?;
        Box::new(Unpacked(decoder, "Zstandard"))
    } else {
        Box::new(whole)
    };
    let (first, mut whole) = start(text).map_err(fail)?;
    let mark = first.len() - file::without_mark(&first).map_err(|error| error.at(path.display()))?.len();
    io::copy(&mut whole.by_ref().take(mark as u64), &mut io::sink()).map_err(fail)?;
    Ok(Box::new(whole))
}

/// The first bytes of `input`, and all of it.
fn start(mut input: Input) -> io::Result<(Vec<u8>, impl Read + Send + 'static)> {
    let mut first = Vec::new();
    input.by_ref().take(16).read_to_end(&mut first)?;
    Ok((first.clone(), Cursor::new(first).chain(input)))
}

/// The decompressed content of an archive.
struct Unpacked<R>(R, &'static str);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out).map_err(|error| match error.raw_os_error() {
            Some(_) => error,
            None => io::Error::other(format!("its {} data are damaged or truncated ({error})", self.1)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut input = plain(Path::new("f"), Box::new(Cursor::new(bytes.to_vec())))?;
        input.read_to_end(&mut out).map(|_| out).map_err(|error| Error::new(error.to_string()))
    }

    #[test]
    fn what_is_packed_comes_out_plain_or_is_an_error() {
        let text = b"one line\nand another\n".repeat(1000);
        let (front, back) = text.split_at(777);
        let parts = [[gzip(front), gzip(back)].concat(), [zstd(front), zstd(back)].concat()];
        for packed in [text.clone(), gzip(&text), zstd(&text)].into_iter().chain(parts) {
            assert!(read(&packed).unwrap() == text);
        }
        // Longer than the decoder's default limit. A stream of unknown length needs its whole window.
        let mut long = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        long.window_log(28).unwrap();
        long.write_all(&text).unwrap();
        assert!(read(&long.finish().unwrap()).unwrap() == text);
        let marked = [b"\xEF\xBB\xBF", &text[..]].concat();
        for packed in [gzip(&marked), zstd(&marked), marked] {
            assert!(read(&packed).unwrap() == text);
        }
        for wide in [&b"\xFF\xFEa\0"[..], b"\xFE\xFF\0a"].into_iter().flat_map(|text| [text.to_vec(), gzip(text)]) {
            let error = read(&wide).unwrap_err().to_string();
            assert!(error.starts_with("f: this is UTF-16, not UTF-8: `iconv"), "{error}");
        }
        for short in [&b""[..], b"a", &GZIP[..1], &ZSTD[..3], b"BZh is how it begins", b"PAR1 too"] {
            assert_eq!(read(short).unwrap(), short);
        }

        let (gzip, zstd) = (gzip(&text), zstd(&text));
        let mut changed = gzip.clone();
        changed[gzip.len() - 5] ^= 1;
        for damaged in [&gzip[..gzip.len() - 1], &gzip[..gzip.len() / 2], &changed, &zstd[..zstd.len() - 1]] {
            assert!(read(damaged).unwrap_err().to_string().contains("data are damaged or truncated"));
        }
        for (name, start) in OTHERS {
            let said = format!("f is {name}, but must be plain text, possibly compressed by gzip or Zstandard");
            assert_eq!(read(start).unwrap_err().to_string(), said);
        }
    }
}
