//! `ltm doctor`.

use super::output::print;
use super::place::{Choice, Place};
use engine::cuda::Settings;
use engine::probe::{Finding, State, probe};
use engine::{Device, Result};
use lab::table::Table;

/// Show what hardware and software this machine has, what will be used, and what is missing
///
/// At the end it opens the device as for training, with all kernels. The exit code is 1 if --device cuda is given and
/// cannot be used.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(place: &Place) -> Result<()> {
    let settings = Settings::from_env();
    let opened = place.inside(0, || place.try_open(&settings));
    let device = opened.as_ref().map_or(&Device::CPU, |(device, _)| device);
    let mut findings = probe(&settings, device);
    // Parts that only a GPU needs are not missing if no GPU is wanted.
    findings.retain(|finding| place.device != Choice::Cpu || finding.state != State::Missing);
    let state = |finding: &Finding| match finding.state {
        State::Used => "used",
        State::Unused => "not used",
        State::Missing => "missing",
    };
    print(Table::of(&findings).left("part", |f| &f.part).left("", state).left("found", |f| &f.text))?;
    let (device, why) = opened?;
    let computes = match (&device, why) {
        (Device::Cuda(gpu), _) => format!("on {}, all kernels ready", gpu.name()),
        (Device::Cpu(_), Some(why)) => format!("on the CPU: {}", place.explained(&why)),
        (Device::Cpu(_), None) if place.device == Choice::Cpu => "on the CPU".into(),
        (Device::Cpu(_), None) => "on the CPU; an NVIDIA GPU needs NVIDIA's driver, 550 or later".into(),
    };
    print(format_args!("\nltm --device {} computes {computes}", place.device_name()))
}
