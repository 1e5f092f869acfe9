//! Reads files that users name. A path may lead to a pipe without a writer, an endless device, a folder, or a Git LFS
//! pointer. Each gives a one-line error; the program does not hang or misread the content.

use crate::{Error, Result};
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;

/// The start of a Git LFS pointer, a few lines that stand for a large file until it is fetched.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// Opens the regular file at `path` for reading.
///
/// # Errors
/// If there is no such file, it cannot be read, or it is a Git LFS pointer.
pub fn open(path: &Path) -> Result<File> {
    let fail = |error: io::Error| Error::io("read", path, &error);
    let place = path.display();
    let meta = fs::metadata(path).map_err(fail)?;
    if meta.is_dir() {
        return Err(Error::new(format!("{place} is a folder, not a file")));
    }
    // Checked before opening, because opening a pipe waits for its writer.
    if !meta.is_file() {
        return Err(Error::new(format!("{place} is not a regular file: name a file, or copy its content into one")));
    }
    let mut file = File::open(path).map_err(fail)?;
    let mut start = Vec::new();
    file.by_ref().take(LFS.len() as u64).read_to_end(&mut start).map_err(fail)?;
    if start == LFS {
        return Err(Error::new(format!(
            "{place} is a Git LFS pointer, not the file itself: `git lfs pull` fetches it"
        )));
    }
    file.rewind().map_err(fail)?;
    Ok(file)
}

/// The bytes of the regular file at `path`. Some files report a size of zero, so this reads to the end.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|error| Error::io("read", path, &error))?;
    Ok(bytes)
}

/// The text of the regular file at `path`, without a byte order mark.
///
/// # Errors
/// As [`open`], and text that is not UTF-8.
pub fn text(path: &Path) -> Result<String> {
    decoded(&read(path)?, path.display())
}

/// The text of `bytes`, without a byte order mark; `name` is their source in messages.
///
/// # Errors
/// If they are not UTF-8.
pub fn decoded(bytes: &[u8], name: impl Display) -> Result<String> {
    let text = without_mark(bytes).map_err(|error| error.at(&name))?;
    std::str::from_utf8(text).map(Into::into).map_err(|error| {
        let line = 1 + text[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        Error::new(format!("{name}:{line}: invalid UTF-8"))
    })
}

/// `text` without the byte order mark that editors on Windows put before UTF-8.
///
/// # Errors
/// If it is the mark of UTF-16 or UTF-32. The message does not name the file.
pub fn without_mark(text: &[u8]) -> Result<&[u8]> {
    // The longest first: the mark of UTF-32 begins with that of UTF-16.
    let marks: [(&[u8], &str); 4] =
        [(b"\xFF\xFE\0\0", "UTF-32"), (b"\0\0\xFE\xFF", "UTF-32"), (b"\xFF\xFE", "UTF-16"), (b"\xFE\xFF", "UTF-16")];
    if let Some((_, name)) = marks.iter().find(|(mark, _)| text.starts_with(mark)) {
        return Err(Error::new(format!("this is {name}, not UTF-8: `iconv -f {name} -t UTF-8 IN > OUT` converts it")));
    }
    Ok(text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_files_that_can_be_read_are_opened() {
        let folder = std::env::temp_dir().join(format!("engine-file-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let at = |name: &str| folder.join(name);
        fs::write(at("text"), b"\xEF\xBB\xBFa\nb").unwrap();
        fs::write(at("wide"), b"\xFF\xFEa\0").unwrap();
        fs::write(at("wider"), b"\xFF\xFE\0\0a\0\0\0").unwrap();
        fs::write(at("odd"), b"a\n\xFF").unwrap();
        fs::write(at("pointer"), [LFS, b"\noid sha256:00\nsize 9\n"].concat()).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        assert_eq!(text(&at("text")).unwrap(), "a\nb");
        for (path, said) in [
            (at("none"), "cannot read"),
            (at("."), "is a folder, not a file"),
            (at("text/none"), "text/none: Not a directory"),
            (at("pipe"), "pipe is not a regular file: name a file"),
            ("/dev/zero".into(), "/dev/zero is not a regular file"),
            (at("pointer"), "pointer is a Git LFS pointer, not the file itself: `git lfs pull` fetches it"),
            (at("wide"), "wide: this is UTF-16, not UTF-8: `iconv"),
            (at("wider"), "wider: this is UTF-32, not UTF-8: `iconv -f UTF-32"),
            (at("odd"), "odd:2: invalid UTF-8"),
        ] {
            let error = text(&path).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        // The system reports its size as zero.
        #[cfg(target_os = "linux")]
        assert!(!read(Path::new("/proc/self/maps")).unwrap().is_empty());
        fs::remove_dir_all(&folder).unwrap();
    }
}
