use super::events::Events;
use crate::json::{self, Value};
use engine::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// `metrics.jsonl`, open for writing by this process alone: an object a line, each with the `step` that it is about.
#[derive(Debug)]
pub struct Metrics {
    file: File,
    path: PathBuf,
    events: Option<Events>,
}

impl Metrics {
    /// Opens or makes the file at `path` and keeps what it says about steps up to `step`; what comes after is cut off, a
    /// line that was not finished included.
    ///
    /// # Errors
    /// If it cannot be read or written, or another process is writing it.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let fail = |e: std::io::Error| Error::io("write", path, &e);
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(fail)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(format!(
                    "{} is being written by another process: let it end, or stop it",
                    path.display()
                )));
            }
            // Where the file system knows no locks, goodwill has to do.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let (mut kept, mut end, mut line) = (0, 0, Vec::new());
        let mut reader = BufReader::new(&file);
        loop {
            line.clear();
            let n = reader.read_until(b'\n', &mut line).map_err(fail)?;
            if n == 0 {
                break;
            }
            end += n as u64;
            let found = json::parse(&line).and_then(|value| value.read("step", Value::as_u64));
            if line.ends_with(b"\n") && found.is_ok_and(|at| at <= step) {
                kept = end;
            }
        }
        file.set_len(kept).map_err(fail)?;
        Ok(Self { file, path: path.into(), events: None })
    }

    /// Keeps event files for TensorBoard in `folder` too, in a new file for the steps after step `after`. Where there are none
    /// yet, it begins with all lines so far.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn mirror(&mut self, folder: &Path, after: u64) -> Result<()> {
        let is_first = !Events::exist(folder);
        let mut events = Events::create(folder, after)?;
        let mut written = Ok(());
        let read = Self::read_all(&self.path, |line| {
            if is_first && written.is_ok() && line.get("step").is_some() {
                written = events.write(line);
            }
        });
        if let Err(error) = read.and(written) {
            return Err(events.discard(error));
        }
        self.events = Some(events);
        Ok(())
    }

    /// Calls `each` with every line that can be read and is about a step itself, in order.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn steps(&self, each: impl FnMut(&Value)) -> Result<()> {
        Self::read(&self.path, each)
    }

    /// Calls `each` with every line that can be read, in order.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn all(&self, each: impl FnMut(&Value)) -> Result<()> {
        Self::read_all(&self.path, each)
    }

    /// As [`steps`](Self::steps) of the file at `path`, which nobody need have open.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: &Path, mut each: impl FnMut(&Value)) -> Result<()> {
        Self::read_all(path, |line| {
            if Self::is_step(line) {
                each(line);
            }
        })
    }

    /// Targets that the run whose file is at `path` has learnt from, and the seconds that this took.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn effort(path: &Path) -> Result<(u64, f64)> {
        let (mut targets, mut seconds) = (0, 0.0);
        Self::read(path, |line| {
            targets += line.read("tokens", Value::as_u64).unwrap_or(0);
            seconds += line.read("seconds", Value::as_f64).unwrap_or(0.0);
        })?;
        Ok((targets, seconds))
    }

    /// Whether a line tells of a step: only a step has counted its tokens.
    pub(super) fn is_step(line: &Value) -> bool {
        line.read("tokens", Value::as_u64).is_ok()
    }

    /// All lines of the file at `path`.
    pub(super) fn read_all(path: &Path, mut each: impl FnMut(&Value)) -> Result<()> {
        let fail = |e: std::io::Error| Error::io("read", path, &e);
        let mut reader = BufReader::new(File::open(path).map_err(fail)?);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(fail)? > 0 {
            json::parse(&line).iter().for_each(&mut each);
            line.clear();
        }
        Ok(())
    }

    /// Appends a line, whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, value: &Value) -> Result<()> {
        self.file.write_all(format!("{value}\n").as_bytes()).map_err(|e| Error::io("write", &self.path, &e))?;
        self.events.as_mut().map_or(Ok(()), |events| events.write(value))
    }

    /// Waits until all lines are on the disk.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, &e))?;
        self.events.as_ref().map_or(Ok(()), Events::sync)
    }
}
