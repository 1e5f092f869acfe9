//! `ltm replay`.

use super::output::{note, print};
use super::place::Place;
use super::progress::bar;
use super::settings::absolute;
use engine::Result;
use ltm::run::{Repeated, Replay, Run, Stretch};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Repeat steps of a run and compare them with what it recorded, bit for bit
///
/// Begins at the newest whole checkpoint before the steps, or at the initial weights, with the settings that the run's records
/// have. Every number that the metrics tell of a step is compared, a checksum of weights and moments among them (not of runs
/// on a GPU), and weights and moments with the run's checkpoints, byte for byte. Nothing is written. The exit code is 1 if a
/// step comes out differently.
#[derive(clap::Args)]
pub struct Args {
    /// Run folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// First and last step, as in `41..60` [default: all]
    #[arg(long, value_name = "A..B", value_parser = steps)]
    steps: Option<RangeInclusive<u64>>,
    /// Where the run's data are now, if they have moved
    #[arg(long, value_name = "FILE|DIR", num_args = 1..)]
    data: Vec<PathBuf>,
}

fn steps(text: &str) -> std::result::Result<RangeInclusive<u64>, String> {
    let ends = text.split_once("..").and_then(|(a, b)| Some(a.trim().parse().ok()?..=b.trim().parse().ok()?));
    ends.ok_or_else(|| "must be FIRST..LAST, as in 41..60".into())
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let run = Run::open(&args.run)?;
    let stretch = Stretch::of(&run, args.steps.clone())?;
    let mut config = stretch.config()?.clone();
    if !args.data.is_empty() {
        config.data.paths.clone_from(&args.data);
        absolute(&mut config)?;
    }
    place.inside(config.train.threads, || {
        let material = lab::text::material(&config)?;
        let (mut replay, differences) =
            place.within(|device| Ok((Replay::new(&stretch, &material, device)?, stretch.differences(device)?)))?;
        let (steps, after) = (stretch.steps(), stretch.begins_after());
        let from = if after == 0 { "the initial weights".into() } else { format!("the checkpoint of step {after}") };
        note(format_args!("repeats {} from {from}", name(&steps)));
        for difference in differences {
            note(format_args!("note: {difference}; the bits may differ for that alone"));
        }
        let display = bar(steps.end() - after, "{bar:24} {pos}/{len} steps  ETA {eta}");
        let mut done = Vec::new();
        while let Some(repeated) = replay.advance().inspect_err(|_| display.finish_and_clear())? {
            display.inc(1);
            done.push(repeated);
        }
        display.finish_and_clear();
        print(summary(&steps, &done))
    })
}

fn name(steps: &RangeInclusive<u64>) -> String {
    let (first, last) = (steps.start(), steps.end());
    if first == last { format!("step {first}") } else { format!("steps {first}..{last}") }
}

/// What was compared.
fn summary(steps: &RangeInclusive<u64>, done: &[Repeated]) -> String {
    let saved: Vec<String> = done.iter().filter(|r| r.checkpoint).map(|r| r.step.to_string()).collect();
    let mut compared = vec!["every number of the metrics".to_string()];
    match done.iter().filter(|r| r.state).count() {
        0 => {}
        n if n == done.len() => compared.push("weights and moments behind every step by their checksum".into()),
        n => compared.push(format!("weights and moments behind {n} of the steps by their checksum")),
    }
    match &saved[..] {
        [] => {}
        [one] => compared.push(format!("the checkpoint of step {one} byte for byte")),
        many => compared.push(format!("the checkpoints of steps {} byte for byte", many.join(", "))),
    }
    format!("{} repeated, all bits the same: {}", name(steps), compared.join("; "))
}
