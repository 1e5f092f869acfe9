//! The text tables of all commands, and the format of numbers.

use ltm::evaluate::Mean;
use std::fmt::{self, Display, Formatter};

/// The text of an empty cell.
pub const DASH: &str = "–";

/// A column with one cell per row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub name: String,
    /// Whether its cells are numbers, which are right-aligned.
    pub is_number: bool,
    /// The cells.
    pub cells: Vec<String>,
}

/// A table of some rows, built column by column. It displays as text, without a line break after the last row.
///
/// ```
/// use lab::table::{Table, digits};
///
/// let rows = [("elbo", 1.5), ("böb", f64::NAN)];
/// let table = Table::of(&rows).left("protocol", |row| row.0).right("nats", |row| digits(row.1, 2));
/// assert_eq!(table.to_string(), "protocol  nats\nelbo      1.50\nböb          –");
/// ```
#[derive(Clone, Debug)]
pub struct Table<'a, R> {
    /// Its rows.
    pub rows: &'a [R],
    /// Its columns, for other layouts.
    pub columns: Vec<Column>,
}

impl<'a, R> Table<'a, R> {
    /// A table of `rows` without columns.
    pub fn of(rows: &'a [R]) -> Self {
        Self { rows, columns: Vec::new() }
    }

    /// Adds a column of words.
    pub fn left<C: Display>(self, name: impl Into<String>, cell: impl Fn(&'a R) -> C) -> Self {
        self.column(name.into(), false, cell)
    }

    /// Adds a column of numbers.
    pub fn right<C: Display>(self, name: impl Into<String>, cell: impl Fn(&'a R) -> C) -> Self {
        self.column(name.into(), true, cell)
    }

    fn column<C: Display>(mut self, name: String, is_number: bool, cell: impl Fn(&'a R) -> C) -> Self {
        let cells = self.rows.iter().map(|row| cell(row).to_string()).collect();
        self.columns.push(Column { name, is_number, cells });
        self
    }
}

impl<R> Display for Table<'_, R> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let length = |text: &String| text.chars().count();
        let width = |column: &Column| column.cells.iter().chain([&column.name]).map(length).max().unwrap_or(0);
        let widths: Vec<usize> = self.columns.iter().map(width).collect();
        let line = |cell: &dyn Fn(&Column) -> String| {
            let padded = self.columns.iter().zip(&widths).map(|(column, &width)| {
                let cell = cell(column);
                if column.is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
        };
        f.write_str(&line(&|column| column.name.clone()))?;
        (0..self.rows.len()).try_for_each(|row| write!(f, "\n{}", line(&|column| column.cells[row].clone())))
    }
}

/// A number with this many decimals; a dash if it is not finite. Zero has no sign.
pub fn digits(x: f64, digits: usize) -> String {
    let text = format!("{x:.digits$}");
    match text.strip_prefix('-') {
        _ if !x.is_finite() => DASH.into(),
        Some(size) if size.parse() == Ok(0.0) => size.into(),
        _ => text,
    }
}

/// A value and its standard error, each with this many decimals: `12.34 ± 0.56`.
pub fn plus_minus(value: f64, error: f64, places: usize) -> String {
    format!("{} ± {}", digits(value, places), digits(error, places))
}

/// A mean in nats and its standard error.
pub fn nats(mean: Mean) -> String {
    plus_minus(mean.mean, mean.error, 2)
}

/// A perplexity with a sensible number of digits; an untrained model's can be huge.
pub fn perplexity(x: f64) -> String {
    match x {
        _ if !x.is_finite() => DASH.into(),
        1e5.. => format!("{x:.1e}"),
        100.0.. => digits(x, 1),
        _ => digits(x, 3),
    }
}

/// The SI prefix of a large number, and its factor.
fn prefix(x: f64) -> (f64, &'static str) {
    match x.abs() {
        1e12.. => (1e12, "T"),
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        1e3.. => (1e3, "k"),
        _ => (1.0, ""),
    }
}

/// A number with a prefix to its unit: `12.35 kB`.
pub fn si(x: f64, unit: &str) -> String {
    let (scale, prefix) = prefix(x);
    let places = if scale == 1.0 { 0 } else { 2 };
    format!("{} {prefix}{unit}", digits(x / scale, places)).trim_end().into()
}

/// A number with at most four digits: `0.25`, `1500`, `20 k`, `1.5 M`.
pub fn number(x: f64) -> String {
    let (scale, prefix) = if x.abs() < 1e4 { (1.0, "") } else { prefix(x) };
    let power = 10f64.powi((3 - (x / scale).abs().max(1e-9).log10().floor() as i32).clamp(0, 6));
    // A sum with zero takes the sign from a negative zero.
    format!("{} {prefix}", (x / scale * power).round() / power + 0.0).trim_end().into()
}

/// The first digits of a hash, for people.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Makes control characters and text-direction marks visible.
pub fn visible(text: &str) -> String {
    let show = |c: char| match c {
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => '\u{FFFD}'.into(),
        c if c.is_control() && !"\n\t".contains(c) => format!("\\x{:02x}", c as u32),
        c => c.into(),
    };
    text.chars().map(show).collect()
}

/// A value, or a dash if there is none.
pub fn or_dash(value: Option<impl Display>) -> String {
    value.map_or(DASH.into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        assert_eq!([2.34567, 1234.56, 2.345e17, f64::INFINITY].map(perplexity), ["2.346", "1234.6", "2.3e17", DASH]);
        assert_eq!((si(12_345.0, "B"), si(7.0, "")), ("12.35 kB".to_string(), "7".to_string()));
        assert_eq!(
            [0.25, 0.0, 1500.0, 20_000.0, 1.5e6, 0.1 + 0.2, 418.43, 0.015].map(number),
            ["0.25", "0", "1500", "20 k", "1.5 M", "0.3", "418.4", "0.015"]
        );
        assert_eq!(nats(Mean { mean: -1.0, error: f64::NAN }), "-1.00 ± –");
        let zeros = [digits(-0.004, 2), digits(-0.4, 0), plus_minus(-0.0, 0.01, 2), si(-0.3, ""), number(-1e-9)];
        assert_eq!(zeros, ["0.00", "0", "0.00 ± 0.01", "0", "0"]);
        assert_eq!((digits(-0.006, 2), number(-0.25)), ("-0.01".to_string(), "-0.25".to_string()));
        assert_eq!((short("0123456789abcdef"), short("0123")), ("0123456789ab", "0123"));
        assert_eq!((or_dash(Some(3)), or_dash(None::<u8>)), ("3".to_string(), DASH.to_string()));
    }
}
