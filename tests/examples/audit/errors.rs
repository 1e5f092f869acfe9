//! The errors of every op and update, per type and backend.

use kernels::registry::modules;
use lab::verify;
use tests::measured::{ON_SHIM, errors};
use tests::shim::{Order, Shim, loaded};

/// The table of errors. The lines of the host shim are copied from `old` if it is given: computing them takes minutes,
/// and a test of the shim compares them.
pub fn section(old: Option<&str>) -> String {
    let mut text = "## Errors\n\nWorst relative error ‖x − f64‖ / ‖f64‖ of result (or state) and gradient at the cases of `ltm verify`, and \
         of the f64 gradient against central differences. `cargo test -p gradtest` checks the same gradients for every subset of wanted inputs at \
         256 random points, and fails if no point could certify an input. On the CPU everything is stored in f32; there `bf16` says that products round their factors. No GPU was needed for this page: the CUDA kernels ran on the host shim, on the CPU.\n\n\
         | device | op | type | result | gradient | f64 gradient |\n|---|---|---|---|---|---|\n"
        .to_string();
    let mut lines: Vec<String> = verify::ops().iter().map(|r| errors("CPU", r)).collect();
    match old {
        Some(old) => lines.extend(old.lines().filter(|line| line.contains(ON_SHIM)).map(String::from)),
        None => {
            let gpu = loaded(Shim::device(Order::Forward), &modules());
            lines.extend(verify::device(&gpu, &[], |_| ()).expect("no failure").iter().map(|r| errors(ON_SHIM, r)));
        }
    }
    lines.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    text
}
