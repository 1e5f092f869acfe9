//! How far sets have come when an interrupt or a crash cuts them short: a small file beside the results, replaced as a whole.
//! Each line has the sums of a set by some protocols, and their digest.

use engine::{Error, Result};
use lab::suite::Tally;
use ltm::checkpoint::write_atomic;
use ltm::hash::sha256;
use ltm::json::{self, Value};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time whose work a crash may lose, beside that of a batch.
const PAUSE: Duration = Duration::from_secs(20);

/// The file, and when it was last written for what is scored now.
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

    /// The tallies of exactly these keys and the seconds spent on them, if the file tells of them.
    pub fn of(&self, keys: &[String]) -> Option<(Vec<Tally>, f64)> {
        let found = self.all().into_iter().find(|sums| is_of(sums, keys))?;
        let tallies: Result<Vec<Tally>> = found.get("tallies")?.as_array().ok()?.iter().map(Tally::from_json).collect();
        let tallies = tallies.ok().filter(|tallies| tallies.len() == keys.len())?;
        Some((tallies, found.read("seconds", Value::as_f64).ok()?))
    }

    /// Whether it is time to save again.
    pub fn is_due(&self) -> bool {
        self.saved.is_none_or(|at| at.elapsed() >= PAUSE)
    }

    /// Keeps the tallies of `keys` in place of older ones.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&mut self, keys: &[String], tallies: &[Tally], seconds: f64) -> Result<()> {
        self.saved = Some(Instant::now());
        let tallies = tallies.iter().map(Tally::to_json).collect();
        let sums = [("keys", keys.to_vec().into()), ("seconds", seconds.into()), ("tallies", Value::Array(tallies))];
        let written = self.replace(keys, Some(Value::object(sums)));
        self.is_broken = written.is_err();
        written
    }

    /// Forgets what there is of `keys`: it is finished.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn clear(&mut self, keys: &[String]) -> Result<()> {
        self.saved = None;
        self.replace(keys, None)
    }

    fn replace(&self, keys: &[String], by: Option<Value>) -> Result<()> {
        let rest = self.all().into_iter().filter(|sums| !is_of(sums, keys));
        let line = |sums: Value| format!("{}\n", Value::object([("sha256", digest(&sums).into()), ("begun", sums)]));
        let text: String = rest.chain(by).map(line).collect();
        if !text.is_empty() {
            return write_atomic(&self.path, text.as_bytes());
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &self.path, &error)),
            _ => Ok(()),
        }
    }

    /// All sums in the file that are as they were written.
    fn all(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| json::parse(line).ok());
        let sums = lines.filter_map(|line| Some((line.get("begun")?.clone(), line.get("sha256")?.clone())));
        sums.filter(|(sums, sha256)| *sha256 == digest(sums).into()).map(|(sums, _)| sums).collect()
    }
}

fn is_of(sums: &Value, keys: &[String]) -> bool {
    sums.get("keys").is_some_and(|found| *found == Value::from(keys.to_vec()))
}

fn digest(sums: &Value) -> String {
    sha256(sums.to_string())
}
