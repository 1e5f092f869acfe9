//! Measured numbers in `AUDIT.md`.

use lab::verify::OpReport;

/// The device name of the kernels measured there.
pub const ON_SHIM: &str = "CUDA on the host shim";

/// A line of the table of errors.
pub fn errors(place: &str, report: &OpReport) -> String {
    let number = |error: Option<f64>| match error {
        None => "–".into(),
        Some(0.0) => "0".into(),
        Some(error) => format!("{error:.1e}"),
    };
    let [result, gradient, numeric] = [Some(report.forward), report.gradient, report.numeric].map(number);
    format!("| {place} | {} | {} | {result} | {gradient} | {numeric} |", report.op, report.dtype)
}

/// Whether two lines are equal: the same words, and measured numbers that are close.
pub fn same_line(a: &str, b: &str) -> bool {
    let (a, b): (Vec<_>, Vec<_>) = (a.split_whitespace().collect(), b.split_whitespace().collect());
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || close(a, b))
}

/// Whether two words are measured numbers that are close.
fn close(a: &str, b: &str) -> bool {
    let measured = |text: &str| text.trim_end_matches(',').parse::<f64>().ok().filter(|_| text.contains('e'));
    measured(a).zip(measured(b)).is_some_and(|(a, b)| a <= 4.0 * b && b <= 4.0 * a)
}
