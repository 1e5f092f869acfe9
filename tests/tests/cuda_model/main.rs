//! The model on a device, which the host shim stands in for: training steps, whole runs, what a step asks the device for, and
//! the checks and the benchmark of a device.

mod bench;
mod run;
mod steady;
mod training;
mod verify;

use engine::Device;
use kernels::registry::modules;
use tests::shim::{Order, Shim, loaded};

/// A device with all kernels.
fn shim(order: Order) -> Device {
    loaded(Shim::device(order), &modules())
}
