//! What the ops' cost functions have in common.

use engine::{Cost, Pass, Want};

/// The cost of a pass from the costs of its two halves.
pub fn of_pass(pass: Pass, forward: Cost, vjp: impl Fn(&[Want]) -> Cost) -> Cost {
    match pass {
        Pass::Forward => forward,
        Pass::Vjp(wants) => vjp(wants),
        Pass::Fused(wants) => forward + vjp(wants),
    }
}

/// The cost of putting `numbers` finished numbers of `bytes` bytes in all where they are wanted: adding reads them as well.
pub fn store(want: Want, numbers: usize, bytes: usize) -> Cost {
    match want {
        Want::Skip => Cost::default(),
        Want::Write => Cost { flops: 0, bytes: bytes as u64 },
        Want::Add => Cost { flops: numbers as u64, bytes: 2 * bytes as u64 },
    }
}
