//! How far every op and update is off, per type and backend.

use kernels::registry::modules;
use lab::verify::{self, OpReport};
use tests::shim::{Order, Shim, loaded};

/// What begins the lines of the kernels that ran on the processor.
const ON_SHIM: &str = "| CUDA on the host shim |";

/// The table of errors. The lines of the host shim are those of `old` if it is given: they take minutes, and a test of the shim
/// compares its own with them.
pub fn section(old: Option<&str>) -> String {
    let mut text = "## Errors\n\nWorst relative error ‖x − f64‖ / ‖f64‖ of result (or state) and gradient at the cases of `ltm verify`, and \
         of the f64 gradient against central differences. `cargo test -p gradtest` checks the same gradients for every subset of wanted inputs at \
         256 random points, and fails where an input could not be certified. Nothing computes in bf16 on the CPU. No GPU is needed for this page: \
         its CUDA kernels ran on the processor.\n\n\
         | where | room | type | result | gradient | f64 gradient |\n|---|---|---|---|---|---|\n"
        .to_string();
    for report in verify::ops().expect("a processor does not fail") {
        text.push_str(&line("| CPU |", &report));
    }
    match old {
        Some(old) => {
            old.lines().filter(|line| line.starts_with(ON_SHIM)).for_each(|line| text.push_str(&format!("{line}\n")))
        }
        None => {
            let gpu = loaded(Shim::device(Order::Forward), &modules());
            let reports = verify::device(&gpu, &[], |_| ()).expect("the shim does not fail");
            reports.iter().for_each(|report| text.push_str(&line(ON_SHIM, report)));
        }
    }
    text
}

fn line(place: &str, report: &OpReport) -> String {
    let number = |error: Option<f64>| match error {
        None => "–".into(),
        Some(0.0) => "0".into(),
        Some(error) => format!("{error:.1e}"),
    };
    let (result, gradient, numeric) = (number(Some(report.forward)), number(report.gradient), number(report.numeric));
    format!("{place} {} | {} | {result} | {gradient} | {numeric} |\n", report.op, report.dtype)
}
