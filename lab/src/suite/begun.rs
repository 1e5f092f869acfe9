use engine::{Error, Result};
use ltm::checkpoint::write_atomic;
use ltm::evaluate::Total;
use ltm::json;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time whose work a crash may lose, beside that of a batch.
const PAUSE: Duration = Duration::from_secs(20);

/// How far a set has come by protocols that share their draws: a line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Sums {
    /// The keys of the results to come, which say what the sums belong to.
    keys: Vec<String>,
    seconds: f64,
    totals: Vec<Total>,
}

/// How far sets have come when an interrupt or a crash cuts them short: a small file beside the results, replaced as a whole.
#[derive(Debug)]
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

    /// The sums of exactly these keys and the seconds spent on them, if the file tells of them.
    pub fn of(&self, keys: &[String]) -> Option<(Vec<Total>, f64)> {
        let found = self.all().into_iter().find(|sums| sums.keys == keys && sums.totals.len() == keys.len())?;
        Some((found.totals, found.seconds))
    }

    /// Whether it is time to save again.
    pub fn is_due(&self) -> bool {
        self.saved.is_none_or(|at| at.elapsed() >= PAUSE)
    }

    /// Keeps the sums of `keys` in place of older ones.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&mut self, keys: &[String], totals: &[Total], seconds: f64) -> Result<()> {
        self.saved = Some(Instant::now());
        let written = self.replace(keys, Some(Sums { keys: keys.into(), seconds, totals: totals.into() }));
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

    fn replace(&self, keys: &[String], by: Option<Sums>) -> Result<()> {
        let rest = self.all().into_iter().filter(|sums| sums.keys != keys);
        let text: String = rest.chain(by).map(|sums| json::line(&sums) + "\n").collect();
        if !text.is_empty() {
            return write_atomic(&self.path, text.as_bytes());
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &self.path, &error)),
            _ => Ok(()),
        }
    }

    /// All lines of the file that can be read.
    fn all(&self) -> Vec<Sums> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().filter_map(|line| json::from_bytes(line).ok()).collect()
    }
}
