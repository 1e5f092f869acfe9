//! Output: results go to standard output, notes and progress to standard error.

use super::progress::aside;
use engine::{Error, Result};
use lab::table::visible;
use ltm::shell;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Prints a line to standard output. A reader that has gone away (`ltm … | head`) ends the program silently.
///
/// # Errors
/// Any other failure to write.
pub fn print(text: impl Display) -> Result<()> {
    write(&format!("{text}\n"))
}

/// Prints text to standard output at once, without a line break; otherwise as [`print`].
fn write(text: &str) -> Result<()> {
    if is_quiet() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|e| Error::new(format!("cannot write to standard output: {e}"))),
    }
}

/// Prints text that a model generated or read, as [`write`] does. On a terminal control characters are made visible,
/// because a terminal would obey them.
pub fn show(text: &str) -> Result<()> {
    if io::stdout().is_terminal() { write(&visible(text)) } else { write(text) }
}

/// Whether this process leaves results, notes and progress to another one.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether this process prints nothing.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// From now on this process prints nothing but errors that end it.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Prints a line to standard error. A failure to write is ignored.
pub fn note(text: impl Display) {
    if is_quiet() {
        return;
    }
    aside(|| _ = writeln!(io::stderr().lock(), "{text}"));
}

/// Prints warnings to standard error, one per line.
pub fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| note(format_args!("warning: {warning}")));
}

/// Checks that a file can be written at `path`, before minutes of work. An existing file is overwritten only if its name
/// ends in `ending`, because any other is not an earlier result; an empty `ending` permits every file.
///
/// # Errors
/// If its folder does not exist or is not writable, if the path is a folder, or another kind of file.
pub fn check_place(path: &Path, ending: &str) -> Result<()> {
    let place = path.canonicalize().unwrap_or_else(|_| Path::new(".").join(path));
    let Some(folder) = place.parent().filter(|folder| folder.is_dir() && !place.is_dir()) else {
        return Err(Error::new(format!("cannot write {}: name a file in a folder that exists", path.display())));
    };
    // A regular file is written beside the old one and replaces it; a pipe or terminal is written directly.
    if place.exists() && !place.is_file() {
        return Ok(());
    }
    if place.exists() && !path.to_string_lossy().ends_with(ending) {
        let path = path.display();
        return Err(Error::new(format!(
            "cannot write {path}: it exists and does not end in {ending}; name a new file, or one that ends in {ending}"
        )));
    }
    let trial = folder.join(format!(".ltm-{}", std::process::id()));
    File::create(&trial).and_then(|_| fs::remove_file(&trial)).map_err(|e| Error::io("write", path, &e))
}

/// The command line, to reproduce a result.
pub fn command() -> String {
    let words = std::env::args().skip(1).map(|word| shell::word(&word));
    std::iter::once("ltm".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}
