//! Where words go: results to the standard output, everything about the work to the standard error.

use engine::{Error, Result};
use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// Prints a line to the standard output. A reader that has gone away (`ltm … | head`) ends the program silently.
///
/// # Errors
/// Any other failure to write.
pub fn print(text: impl Display) -> Result<()> {
    write(&format!("{text}\n"))
}

/// Prints text to the standard output at once, without a line's end; otherwise as [`print`].
///
/// # Errors
/// As [`print`].
pub fn write(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|e| Error::new(format!("cannot write to the standard output: {e}"))),
    }
}

/// Prints a line to the standard error. If nobody can read it, nobody can be told so.
pub fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The command line, for whoever wants the figure again.
pub fn command() -> String {
    let words = std::env::args().skip(1).map(|word| quoted(&word));
    std::iter::once("ltm".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A word of a command line, as a shell takes it.
pub fn quoted(word: &str) -> String {
    match !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=,:+".contains(c)) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Which way a column's cells lean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Lays out rows under headings, two blanks apart.
pub fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |c: usize| {
        let cells = rows.iter().map(|row| row[c].chars().count());
        cells.chain([columns[c].0.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(columns.iter().zip(&widths)).map(|(cell, ((_, align), &width))| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    let mut lines = vec![line(&mut columns.iter().map(|(name, _)| *name))];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// As much of a digest as a person compares.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A perplexity with as many digits as say something: of a model that has learnt little it is astronomical. A dash where there
/// is none.
pub fn perplexity(x: f64) -> String {
    match x {
        _ if !x.is_finite() => "–".into(),
        1e5.. => format!("{x:.1e}"),
        100.0.. => format!("{x:.1}"),
        _ => format!("{x:.3}"),
    }
}

/// A number with so many digits behind the point, or a dash where there is none.
pub fn digits(x: f64, digits: usize) -> String {
    if x.is_finite() { format!("{x:.digits$}") } else { "–".into() }
}

/// A number with a prefix to its unit: `12.35 kB`.
pub fn si(x: f64, unit: &str) -> String {
    let (scale, prefix) = match x {
        1e12.. => (1e12, "T"),
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        1e3.. => (1e3, "k"),
        _ => return format!("{x:.0} {unit}").trim_end().to_string(),
    };
    format!("{:.2} {prefix}{unit}", x / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_headings() {
        let rows = [vec!["a".to_string(), "1.5".into()], vec!["böb".into(), "10.25".into()]];
        let text = table(&[("name", Align::Left), ("n", Align::Right)], &rows);
        assert_eq!(text, "name      n\na       1.5\nböb   10.25");
        let shown = [2.34567, 1234.56, 2.345e17, f64::INFINITY].map(perplexity);
        assert_eq!(shown, ["2.346", "1234.6", "2.3e17", "–"]);
        assert_eq!((si(12_345.0, "B"), si(7.0, "")), ("12.35 kB".to_string(), "7".to_string()));
    }
}
