//! Reads and writes JSON: files, lines of a `.jsonl` file, and text, by serde_json, with one-line errors that name file
//! and line.

use engine::{Error, Result, file};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Reads one value from text or from bytes that must be UTF-8, with or without a byte order mark.
///
/// # Errors
/// With line and column, if the text is not JSON, or a field is missing, duplicate or of another type.
pub fn from_bytes<T: DeserializeOwned>(input: impl AsRef<[u8]>) -> Result<T> {
    let text = file::without_mark(input.as_ref())?;
    serde_json::from_slice(text).map_err(|error| says(&error, text, error.line()))
}

/// Reads the file at `path`, which holds one value.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    from_bytes(file::read(path)?).map_err(|e| e.at(path.display()))
}

/// Reads a `.jsonl` file, one value per line. Empty lines are skipped, and so is a truncated last line (without a line
/// break and not readable), as a killed process may leave it.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = file::read(path)?;
    let mut values = Vec::new();
    for (i, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(value) => values.push(value),
            Err(_) if !line.ends_with(b"\n") => {}
            Err(error) => return Err(says(&error, line, i + 1).at(path.display())),
        }
    }
    Ok(values)
}

/// A `.jsonl` file that only this process writes. Lines are only appended.
#[derive(Debug)]
pub struct Lines {
    file: File,
    path: PathBuf,
}

impl Lines {
    /// [Locks](Self::lock) the file at `path` and [cuts](Self::cut) it.
    pub fn open<T: DeserializeOwned>(path: &Path, keep: impl Fn(&T) -> bool) -> Result<(Self, Vec<T>)> {
        let mut lines = Self::lock(path)?;
        let values = lines.cut(keep)?;
        Ok((lines, values))
    }

    /// Opens or makes the file at `path` for this process alone.
    ///
    /// # Errors
    /// If it cannot be opened, or another process is writing it.
    pub fn lock(path: &Path) -> Result<Self> {
        if path.exists() {
            file::open(path)?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.map_err(|e| Error::io("write", path, &e))?;
        // If the file system has no locks, continue without one.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let path = path.display();
            return Err(Error::new(format!("{path} is being written by another process: wait for it, or stop it")));
        }
        Ok(Self { file, path: path.into() })
    }

    /// The values of the lines up to the last one that `keep` accepts. Everything after it is cut off, including a
    /// truncated line. An unreadable line before it stays in the file but is skipped.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn cut<T: DeserializeOwned>(&mut self, keep: impl Fn(&T) -> bool) -> Result<Vec<T>> {
        let fail = |e: std::io::Error| Error::io("write", &self.path, &e);
        let mut text = Vec::new();
        self.file.read_to_end(&mut text).map_err(fail)?;
        let (mut values, mut end, mut kept) = (Vec::new(), 0, 0);
        for line in text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            end += line.len() as u64;
            if let Some(value) = serde_json::from_slice(line).ok().filter(&keep) {
                values.push(value);
                kept = end;
            }
        }
        self.file.set_len(kept).map_err(fail)?;
        Ok(values)
    }

    /// Checks that the path still leads to the file, because writes to a moved or removed file would be lost silently.
    fn check(&self) -> Result<()> {
        let ours = self.file.metadata().map_err(|e| Error::io("write", &self.path, &e))?;
        if fs::metadata(&self.path).is_ok_and(|found| is_same(&found, &ours)) {
            return Ok(());
        }
        Err(Error::new(format!(
            "{} was moved, removed or replaced while this program was writing it: nothing more is written",
            self.path.display()
        )))
    }

    /// Appends a line, whole.
    ///
    /// # Errors
    /// If it cannot be written, or is no longer where it was opened.
    pub fn write(&mut self, value: &impl Serialize) -> Result<()> {
        self.check()?;
        self.file.write_all((line(value) + "\n").as_bytes()).map_err(|e| Error::io("write", &self.path, &e))
    }

    /// Waits until all lines are on the disk.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn sync(&self) -> Result<()> {
        self.check()?;
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, &e))
    }
}

/// Whether both are of the same file.
#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Only Unix numbers its files; elsewhere the length must do.
#[cfg(not(unix))]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    one.len() == other.len()
}

/// A value on one line, without a final line break. Non-finite numbers become `null`.
///
/// # Panics
/// If the value cannot be written as JSON: a map whose keys are not text.
pub fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a value that JSON can hold")
}

/// A readable value: one entry per line, indented by two spaces, with a final line break.
///
/// # Panics
/// As [`line`].
pub fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("a value that JSON can hold") + "\n"
}

/// The error in `text` without serde_json's position, which does not count earlier lines. It may quote a key with a line
/// break.
fn says(error: &serde_json::Error, text: &[u8], line: usize) -> Error {
    let message = error.to_string().replace(['\n', '\r'], " ");
    let what = message.rsplit_once(" at line ").map_or(&message[..], |(what, _)| what);
    let place = format!("line {line}, column {}", error.column());
    let read =
        text.split(|&byte| byte == b'\n').nth(error.line().saturating_sub(1)).and_then(|l| l.get(..error.column()));
    match read.filter(|_| error.is_syntax()).and_then(lone_surrogate) {
        Some(code) => Error::new(format!("{place}: \\u{code:04x} is half of a surrogate pair, without the other half")),
        None => Error::new(format!("{place}: {what}")),
    }
}

/// The surrogate at the end of `read`, up to two bytes before it, unless it completes a pair.
fn lone_surrogate(read: &[u8]) -> Option<u16> {
    let surrogate = |at: usize| {
        let digits = read.get(at..at + 6)?.strip_prefix(b"\\u")?;
        // A backslash before that one escapes it.
        let escapes = read[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
        if escapes % 2 == 1 {
            return None;
        }
        let code = u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        (0xD800..0xE000).contains(&code).then_some(code)
    };
    let at = (6..=8).filter_map(|back| read.len().checked_sub(back)).find(|&at| surrogate(at).is_some())?;
    let is_pair = surrogate(at)? >= 0xDC00 && at.checked_sub(6).and_then(surrogate).is_some_and(|high| high < 0xDC00);
    surrogate(at).filter(|_| !is_pair)
}

/// For fields of type `f64` that may be NaN or infinite, `#[serde(deserialize_with = "ltm::json::null_is_nan")]`: such a
/// number is written as `null`.
///
/// # Errors
/// If it is neither a number nor `null`.
pub fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::rng::Stream;

    #[derive(Debug, Serialize, Deserialize)]
    struct Row {
        step: u64,
        #[serde(deserialize_with = "null_is_nan")]
        loss: f64,
    }

    #[test]
    fn lines_survive_a_kill_and_errors_name_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("rows.jsonl");
        let (mut lines, rows) = Lines::open::<Row>(path, |_| true).unwrap();
        assert!(rows.is_empty());
        lines.write(&Row { step: 1, loss: 0.5 }).unwrap();
        lines.write(&Row { step: 2, loss: f64::INFINITY }).unwrap();
        let busy = Lines::open::<Row>(path, |_| true).unwrap_err().to_string();
        assert!(busy.contains("another process"), "{busy}");
        drop(lines);
        let whole = fs::read_to_string(path).unwrap();
        assert_eq!(whole, "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":null}\n");
        fs::write(path, format!("{whole}{{\"step\":3,\"lo")).unwrap();
        let rows: Vec<Row> = read_lines(path).unwrap();
        assert!(rows.len() == 2 && rows[0].loss == 0.5 && rows[1].loss.is_nan());
        // Damage before the last kept line does not affect later lines.
        fs::write(path, format!("{{\"stfp\":1}}\n{whole}{{\"step\":3,\"lo")).unwrap();
        let (mut lines, rows) = Lines::open::<Row>(path, |row| row.step < 2).unwrap();
        assert_eq!(rows.len(), 1);
        lines.write(&Row { step: 4, loss: 1.0 }).unwrap();
        let kept = "{\"stfp\":1}\n{\"step\":1,\"loss\":0.5}\n{\"step\":4,\"loss\":1.0}\n";
        assert_eq!(fs::read_to_string(path).unwrap(), kept);

        // A moved file gets no line, and no new file is created.
        let moved = path.with_extension("moved");
        fs::rename(path, &moved).unwrap();
        let mut refuses = || {
            for error in [lines.write(&Row { step: 5, loss: 1.0 }), lines.sync()].map(|r| r.unwrap_err().to_string()) {
                assert!(error.contains("rows.jsonl was moved, removed or replaced"), "{error}");
            }
        };
        refuses();
        assert!(!path.exists());
        // Nor does another file in its place, not even a copy.
        #[cfg(unix)]
        for other in ["another file", kept] {
            fs::write(path, other).unwrap();
            refuses();
            assert_eq!(fs::read_to_string(path).unwrap(), other);
        }
        fs::rename(moved, path).unwrap();
        lines.write(&Row { step: 5, loss: 1.0 }).unwrap();

        fs::write(path, format!("{whole}{{\"step\":3}}\n{whole}")).unwrap();
        let error = read_lines::<Row>(path).unwrap_err().to_string();
        assert!(error.ends_with("rows.jsonl: line 3, column 10: missing field `loss`"), "{error}");
        fs::write(path, "{\"step\": 1,\n \"step\": 2}").unwrap();
        let error = read::<Row>(path).unwrap_err().to_string();
        assert!(error.ends_with("rows.jsonl: line 2, column 7: duplicate field `step`"), "{error}");
    }

    #[test]
    fn half_of_a_surrogate_pair_is_told_as_that() {
        for (text, said) in [
            (r#"["\ud83d x"]"#, "column 9: \\ud83d is half of a surrogate pair"),
            (r#"["\uD83D"]"#, "\\ud83d is half of"),
            (r#"["\ud83d\n"]"#, "\\ud83d is half of"),
            ("[1,\n\"\\ud83d\\ud83d\"]", "line 2, column 13: \\ud83d is half of"),
            (r#"["a\udc00 x"]"#, "\\udc00 is half of"),
            (r#"["\ud83d\ude00"x]"#, "expected `,` or `]`"),
            (r#"["\u12"]"#, "invalid escape"),
            ("", "EOF"),
        ] {
            let error = from_bytes::<Vec<serde_json::Value>>(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn every_finite_number_reads_back_with_the_same_bits() {
        let special = [0.0, -0.0, 0.1, 5e-324, f64::MAX, f64::MIN_POSITIVE, 9_007_199_254_740_993.0, -1e16, 1e21];
        let bits = |w: [u32; 4]| f64::from_bits(u64::from(w[0]) << 32 | u64::from(w[1]));
        let random = (0..20_000).map(|i| bits(Stream::new(3, 1).words(i)));
        for x in special.into_iter().chain(random).filter(|x| x.is_finite()) {
            let text = line(&x);
            assert_eq!(from_bytes::<f64>(&text).unwrap().to_bits(), x.to_bits(), "{text}");
        }
    }
}
