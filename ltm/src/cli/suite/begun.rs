//! How far a set has come when an interrupt or a crash cuts it short: a small file beside the results, replaced as a whole.

use engine::{Error, Result};
use ltm::checkpoint::write_atomic;
use ltm::json::{self, Value};
use ltm::suite::Tally;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time whose work a crash may lose, beside that of a batch.
const PAUSE: Duration = Duration::from_secs(20);

/// The file, and when it was last written for what it tells of.
pub struct Begun {
    path: PathBuf,
    saved: Option<Instant>,
    /// Whether it could not be written.
    pub is_broken: bool,
}

impl Begun {
    /// The file that belongs to the one of `results`; it need not be there.
    pub fn beside(results: &Path) -> Self {
        // Beside the file itself, which is locked, and not beside a link to it.
        let mut path = results.canonicalize().unwrap_or_else(|_| results.into()).into_os_string();
        path.push(".begun");
        Self { path: path.into(), saved: None, is_broken: false }
    }

    /// The tallies of exactly these keys and the seconds spent on them, if that is what the file tells of.
    pub fn of(&self, keys: &[String]) -> Option<(Vec<Tally>, f64)> {
        let found = json::parse(fs::read(&self.path).ok()?).ok()?;
        if *found.get("keys")? != Value::from(keys.to_vec()) {
            return None;
        }
        let tallies: Result<Vec<Tally>> = found.get("tallies")?.as_array().ok()?.iter().map(Tally::from_json).collect();
        let tallies = tallies.ok().filter(|tallies| tallies.len() == keys.len())?;
        Some((tallies, found.read("seconds", Value::as_f64).ok()?))
    }

    /// Whether it is time to save again.
    pub fn is_due(&self) -> bool {
        self.saved.is_none_or(|at| at.elapsed() >= PAUSE)
    }

    /// Keeps the tallies of `keys` in place of what was there.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&mut self, keys: &[String], tallies: &[Tally], seconds: f64) -> Result<()> {
        self.saved = Some(Instant::now());
        let tallies = tallies.iter().map(Tally::to_json).collect();
        let all = [("keys", keys.to_vec().into()), ("seconds", seconds.into()), ("tallies", Value::Array(tallies))];
        let written = write_atomic(&self.path, format!("{}\n", Value::object(all)).as_bytes());
        self.is_broken = written.is_err();
        written
    }

    /// Removes it: what it tells of is finished.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn clear(&mut self) -> Result<()> {
        self.saved = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &self.path, &error)),
            _ => Ok(()),
        }
    }
}
