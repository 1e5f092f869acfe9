//! The model on a device, which the host shim stands in for: whole runs, what a step asks the device for, and
//! the checks and the benchmark of a device.

mod bench;
mod run;
mod steady;
mod verify;

use engine::Device;
use kernels::registry::modules;
use ltm::config::Config;
use tests::shim::{Order, Shim, loaded};

/// A small model, with these settings changed.
fn config(settings: &str) -> Config {
    let model = "model.dim=24 model.heads=2 model.layers=2 model.seq=13 model.window=5 model.latents=3";
    tests::tiny(&format!("{model} train.batch=2 fast.steps=4 {settings}"))
}

/// A device with all kernels.
fn shim(order: Order) -> Device {
    loaded(Shim::device(order), &modules())
}
