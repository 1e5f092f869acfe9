//! `ltm replay`.

use super::output::{note, print};
use super::place::Place;
use super::progress::behind_bar;
use super::runs;
use super::settings::locate;
use engine::{Error, Result};
use ltm::run::{Replay, Stretch};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Repeat steps of a run and compare them with its records, bit for bit
///
/// Starts at the newest complete checkpoint before the steps, or at the initial weights, with the recorded settings.
/// Compares every number in the metrics of a step, including a checksum of weights and moments (not recorded on a GPU),
/// and compares weights and moments with the run's checkpoints byte for byte. Writes nothing. The exit code is 1 if a
/// step differs.
#[derive(clap::Args)]
pub struct Args {
    /// Run folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// First and last step, as in `41..60` [default: all]
    #[arg(long, value_name = "A..B", value_parser = steps)]
    steps: Option<RangeInclusive<u64>>,
    /// The run's data, if they have moved
    #[arg(long, value_name = "FILE|DIR", num_args = 1..)]
    data: Vec<PathBuf>,
}

fn steps(text: &str) -> std::result::Result<RangeInclusive<u64>, String> {
    let ends = text.split_once("..").and_then(|(a, b)| Some(a.trim().parse().ok()?..=b.trim().parse().ok()?));
    ends.ok_or_else(|| "must be FIRST..LAST, as in 41..60".into())
}

pub fn run(args: &Args, place: &Place) -> Result<()> {
    let run = runs::open(&args.run)?;
    let stretch = Stretch::of(&run, args.steps.clone())?;
    let mut config = stretch.config().clone();
    locate(&mut config, &args.data)?;
    place.inside(config.train.threads, || {
        let material = lab::text::material(&config)?;
        let (mut replay, differences) =
            place.within(|device| Ok((Replay::new(&stretch, &material, device)?, stretch.differences(device))))?;
        let (steps, after) = (&stretch.steps, stretch.after);
        let from = if after == 0 { "the initial weights".into() } else { format!("the checkpoint of step {after}") };
        let span = match (steps.start(), steps.end()) {
            (first, last) if first == last => format!("step {first}"),
            (first, last) => format!("steps {first}..{last}"),
        };
        note(format_args!("repeating {span} from {from}"));
        for difference in differences {
            note(format_args!("note: {difference}; this alone may change bits"));
        }
        let done = behind_bar("{bar} {pos}/{len} steps  ETA {eta}", |show| {
            let mut done = Vec::new();
            while let Some(repeated) = replay.advance()? {
                done.push(repeated);
                show(done.len() as u64, steps.end() - after);
            }
            Ok::<_, Error>(done)
        })?;
        let states = match (done.iter().filter(|r| r.state).count(), done.len()) {
            (0, _) => String::new(),
            (states, 1) => format!(", weights and moments after {states} of 1 step by checksum"),
            (states, all) => format!(", weights and moments after {states} of {all} steps by checksum"),
        };
        let saved: Vec<String> = done.iter().filter(|r| r.checkpoint).map(|r| r.step.to_string()).collect();
        let saved = match &saved[..] {
            [] => String::new(),
            [step] => format!(", and the checkpoint of step {step} byte for byte"),
            steps => format!(", and the checkpoints of steps {} byte for byte", steps.join(", ")),
        };
        print(format_args!("{span} repeated, all bits are the same: every number of the metrics{states}{saved}"))
    })
}
