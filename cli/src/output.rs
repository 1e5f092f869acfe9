//! Where words go: results to the standard output, everything about the work to the standard error.

use super::progress::aside;
use engine::{Error, Result};
use lab::table::visible;
use ltm::shell;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// Prints a line to the standard output. A reader that has gone away (`ltm … | head`) ends the program silently.
///
/// # Errors
/// Any other failure to write.
pub fn print(text: impl Display) -> Result<()> {
    write(&format!("{text}\n"))
}

/// Prints text to the standard output at once, without a line's end; otherwise as [`print`].
pub fn write(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|e| Error::new(format!("cannot write to the standard output: {e}"))),
    }
}

/// Prints text that a model wrote, or read, as [`write`] does. A terminal would obey the control characters in it: there they are
/// made visible.
pub fn show(text: &str) -> Result<()> {
    if io::stdout().is_terminal() { write(&visible(text)) } else { write(text) }
}

/// Prints a line to the standard error. If nobody can read it, nobody can be told so.
pub fn note(text: impl Display) {
    aside(|| _ = writeln!(io::stderr().lock(), "{text}"));
}

/// Prints warnings to the standard error, a line each.
pub fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| note(format_args!("warning: {warning}")));
}

/// That a file can be made at `path`, said before minutes of work.
///
/// # Errors
/// If its folder does not exist or takes no file, or it is a folder itself.
pub fn check_place(path: &Path) -> Result<()> {
    let place = path.canonicalize().unwrap_or_else(|_| Path::new(".").join(path));
    let Some(folder) = place.parent().filter(|folder| folder.is_dir() && !place.is_dir()) else {
        return Err(Error::new(format!("cannot write {}: name a file in a folder that exists", path.display())));
    };
    // A file is made beside an older one and takes its place; what is no file is written to as it is.
    if place.exists() && !place.is_file() {
        return Ok(());
    }
    let trial = folder.join(format!(".ltm-{}", std::process::id()));
    File::create(&trial).and_then(|_| fs::remove_file(&trial)).map_err(|e| Error::io("write", path, &e))
}

/// The command line, for whoever wants the figure again.
pub fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| shell::word(&word.to_string_lossy()));
    std::iter::once("ltm".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}
