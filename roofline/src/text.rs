//! Reports and comparisons as text.

use crate::report::time;
use crate::{Cache, Comparison, MARGIN, Numbers, Rate, Report, Task, Verdict};
use std::fmt::{self, Display, Formatter};

impl Display for Cache {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        })
    }
}

/// Rows of cells below the names of their columns, the first two columns to the left and the others to the right.
fn table(names: &[&str], rows: &[Vec<String>]) -> String {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let all = || std::iter::once(&names).chain(rows);
    let length = |text: &String| text.chars().count();
    let width = |column: usize| all().map(|cells| length(&cells[column])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let pad = |(i, (cell, &width)): (usize, (&String, &usize))| {
            if i < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        };
        let padded: Vec<_> = cells.iter().zip(&widths).enumerate().map(pad).collect();
        padded.join("  ").trim_end().to_string()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

/// Every row, then the ceilings with their spread.
impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let percent = |x: f64| format!("{:.0} %", 100.0 * x);
        let pass = |task: &Task, n: &Numbers| {
            n.tokens_per_second.map_or(task.pass.clone(), |rate| format!("{rate:.1} tokens/s"))
        };
        let rows = self.rows.iter().map(|row| {
            let n = row.numbers();
            vec![
                row.task.case.clone(),
                pass(&row.task, &n),
                row.task.cache.to_string(),
                time(n.seconds),
                time(n.seconds_q20),
                time(n.seconds_q80),
                format!("{:.1}", n.flops_per_second / 1e9),
                format!("{:.2}", n.bytes_per_second / 1e9),
                format!("{:.1}", n.intensity),
                percent(n.of_peak),
                percent(n.of_bandwidth),
                row.level.clone(),
                format!("{} {}", n.floor, time(n.floor_seconds)),
                percent(n.reached),
            ]
        });
        let names = [
            "case",
            "pass",
            "cache",
            "median",
            "20 %",
            "80 %",
            "GFLOP/s",
            "GB/s",
            "FLOP/B",
            "of peak",
            "of bandw.",
            "from",
            "floor",
            "reached",
        ];
        let text = |r: &Rate| format!("{} {:.1} ({:.1} to {:.1})", r.name, r.median / 1e9, r.q20 / 1e9, r.q80 / 1e9);
        writeln!(f, "{}\n", table(&names, &rows.collect::<Vec<_>>()))?;
        let Some((peak, memory)) = self.ceilings.split_first() else { return Ok(()) };
        write!(f, "peak, {}: {} GFLOP/s", self.conditions.machine.dtype, text(peak))?;
        if let Some(peak) = &self.f32_peak {
            write!(f, "; in f32: {} GFLOP/s", text(peak))?;
        }
        let memory: Vec<String> = memory.iter().map(text).collect();
        write!(f, "\nbandwidth of memory: {} GB/s", memory.join(", "))?;
        let cache = |cache: &crate::CacheRate| format!("{} {}", cache.level, text(&cache.rate));
        let caches: Vec<String> = self.caches.iter().map(cache).collect();
        if caches.is_empty() { Ok(()) } else { write!(f, "\nbandwidth of caches: {} GB/s", caches.join(", ")) }
    }
}

/// Every compared row, and a summary.
pub fn comparison_text(rows: &[Comparison]) -> String {
    let cells = rows.iter().map(|Comparison { row, change }| {
        let interval =
            change.interval.map_or_else(|| "too few passes".into(), |[low, high]| format!("{low:.3} to {high:.3}"));
        let seen = match (change.verdict, change.smallest) {
            (Verdict::Ambiguous, Some(smallest)) => format!("{smallest:.2} ×"),
            _ => String::new(),
        };
        let task = &row.task;
        let ratio = format!("{:.3} ×", change.ratio);
        vec![
            task.case.clone(),
            task.pass.clone(),
            task.cache.to_string(),
            ratio,
            interval,
            change.verdict.to_string(),
            seen,
        ]
    });
    let names = ["case", "pass", "cache", "time now", "interval", "verdict", "could have seen"];
    let count = |verdict| rows.iter().filter(|row| row.change.verdict == verdict).count();
    format!(
        "{}\n\n{} rows: {} faster, {} slower, {} the same within {:.0} %, {} ambiguous",
        table(&names, &cells.collect::<Vec<_>>()),
        rows.len(),
        count(Verdict::Faster),
        count(Verdict::Slower),
        count(Verdict::Same),
        100.0 * (MARGIN - 1.0),
        count(Verdict::Ambiguous),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_report_and_a_comparison_are_readable() {
        let (then, now) = (report(1.0), report(1.2));
        let text = now.to_string();
        let line = text.lines().find(|line| line.starts_with("linear: queries  forward    hot")).unwrap_or_default();
        assert!(line.contains("15.14ms") && line.ends_with("66 %") && line.contains("memory  FLOPs 10.00ms"), "{text}");
        assert!(text.ends_with("bandwidth of memory: read 10.0 (10.0 to 10.0) GB/s\nbandwidth of caches: L1 read 100.0 (100.0 to 100.0) GB/s"));
        let text = comparison_text(&now.compare(&then).unwrap());
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[1].contains("1.200 ×") && rows[1].ends_with("slower"), "{text}");
        assert!(
            rows[2].ends_with("same")
                && text.ends_with("3 rows: 0 faster, 1 slower, 2 the same within 3 %, 0 ambiguous")
        );
        let few = Report {
            rows: now
                .rows
                .iter()
                .cloned()
                .map(|mut row| {
                    row.samples.0.truncate(3);
                    row
                })
                .collect(),
            ..now
        };
        assert!(comparison_text(&few.compare(&then).unwrap()).contains("too few passes  ambiguous"));
    }
}
