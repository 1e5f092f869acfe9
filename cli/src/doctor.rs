//! `ltm doctor`.

use super::output::print;
use super::{device, threads};
use engine::cuda::Settings;
use engine::probe::{Finding, State, probe};
use engine::{Device, Result};
use lab::table::Table;

/// Say what this machine has, what of it will be used, and what is missing
///
/// Nothing is taken for granted: in the end the device is opened as for training, with all kernels. The exit code is 1 if
/// --device cuda is asked for and cannot be had.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(threads: Option<usize>, choice: device::Choice) -> Result<()> {
    let settings = Settings::from_env();
    let opened = threads::inside(threads.unwrap_or(0), || device::try_open(choice, &settings));
    let device = opened.as_ref().map_or(&Device::Cpu, |(device, _)| device);
    print(text(&probe(&settings, device)))?;
    let (device, why) = opened?;
    let place = match (&device, why) {
        (Device::Cuda(gpu), _) => format!("on {}, all kernels ready", gpu.name()),
        (Device::Cpu, Some(why)) => format!("on the CPU: {}", device::explained(&why, choice)),
        (Device::Cpu, None) if choice == device::Choice::Cpu => "on the CPU".into(),
        (Device::Cpu, None) => "on the CPU; an NVIDIA GPU would need NVIDIA's driver, 550 or later".into(),
    };
    print(format_args!("\nltm --device {choice} computes {place}"))
}

fn text(findings: &[Finding]) -> String {
    let state = |finding: &Finding| match finding.state {
        State::Used => "used",
        State::Unused => "not used",
        State::Missing => "missing",
    };
    Table::of(findings)
        .left("part", |finding| &finding.part)
        .left("", state)
        .left("found", |finding| &finding.text)
        .to_string()
}
